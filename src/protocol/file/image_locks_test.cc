// Two programs that have an image open refuse each other: Platter and itself, Platter and QEMU.

#include "protocol/file/image_locks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "block/graph.h"
#include "block/registry.h"
#include "io/reactor_group.h"
#include "support/scratch_directory.h"

namespace platter::protocol {
namespace {

using namespace block;

// A qemu-io that has `path` open and waits for its standard input to end.
class OtherProgram {
 public:
  OtherProgram(const std::string& path, bool writable) {
    EXPECT_EQ(pipe(input_), 0);
    EXPECT_EQ(pipe(output_), 0);
    pid_ = fork();
    if (pid_ == 0) {
      dup2(input_[0], 0);
      dup2(output_[1], 1);
      close(input_[1]);
      close(output_[0]);
      execlp("qemu-io", "qemu-io", "-f", "raw", writable ? path.c_str() : "-r",
             writable ? nullptr : path.c_str(), nullptr);
      _exit(127);
    }
    close(input_[0]);
    close(output_[1]);
    // It prompts once the image is open.
    char prompt;
    started_ = read(output_[0], &prompt, 1) == 1;
  }
  ~OtherProgram() {
    close(input_[1]);
    waitpid(pid_, nullptr, 0);
    close(output_[0]);
  }
  bool started() const { return started_; }

 private:
  int input_[2];
  int output_[2];
  pid_t pid_;
  bool started_;
};

class ImageLocksTest : public testing::Test {
 protected:
  void SetUp() override {
    std::ofstream(path_) << std::string(65536, 'x');
    auto group = io::ReactorGroup::start({.reactors = 1});
    ASSERT_TRUE(group);
    reactors_ = std::move(*group);
  }
  Result<std::unique_ptr<Backend>> open(Graph& graph, bool writable, bool share_writes,
                                        bool force_share = false) {
    OpenRequest request;
    request.filename = path_;
    request.format = "raw";
    request.flags.read_only = !writable;
    request.force_share = force_share;
    Permissions needed = Permission::kConsistentRead;
    if (writable) needed |= Permission::kWrite;
    const Permissions shared =
        share_writes ? kAllPermissions : Permission::kConsistentRead | Permission::kWriteUnchanged;
    return io::run_blocking(reactors_->at(0), graph.open(std::move(request), needed, shared));
  }
  void close(std::unique_ptr<Backend>& backend) {
    EXPECT_TRUE(io::run_blocking(reactors_->at(0), backend->close()));
  }

  support::ScratchDirectory scratch_;
  const std::string path_ = scratch_.path("disk");
  std::unique_ptr<io::ReactorGroup> reactors_;
  DriverRegistry registry_ = DriverRegistry::builtin();
  base::Log log_;
  Graph graph_{{registry_, io::system_files(), log_}};
  Graph other_{{registry_, io::system_files(), log_}};
};

TEST_F(ImageLocksTest, TwoGraphsRefuseEachOther) {
  auto writer = open(graph_, true, false);
  ASSERT_TRUE(writer) << writer.error().message();
  auto second = open(other_, true, false);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().message(),
            "Could not open '" + path_ + "': Failed to get \"write\" lock");
  EXPECT_EQ(second.error().hint(), "Is another process using the image [" + path_ + "]?");
  auto reader = open(other_, false, false);
  ASSERT_FALSE(reader);
  EXPECT_EQ(reader.error().message(),
            "Could not open '" + path_ + "': Failed to get shared \"write\" lock");
  auto indifferent = open(other_, false, false, true);
  ASSERT_TRUE(indifferent) << indifferent.error().message();
  close(*indifferent);
  close(*writer);
  auto now = open(other_, true, false);
  ASSERT_TRUE(now) << now.error().message();
  close(*now);
}

TEST_F(ImageLocksTest, ReadersShareAnImage) {
  auto one = open(graph_, false, false);
  auto two = open(other_, false, false);
  ASSERT_TRUE(one && two);
  close(*one);
  close(*two);
}

TEST_F(ImageLocksTest, RefusesWhatQemuWrites) {
  OtherProgram qemu(path_, true);
  ASSERT_TRUE(qemu.started());
  // A program that shares everything is no obstacle to one that does too.
  auto sharing = open(graph_, true, true);
  ASSERT_TRUE(sharing) << sharing.error().message();
  close(*sharing);
  for (const bool writable : {true, false}) {
    auto refused = open(graph_, writable, false);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().message(),
              "Could not open '" + path_ + "': Failed to get shared \"write\" lock");
    EXPECT_EQ(refused.error().hint(), "Is another process using the image [" + path_ + "]?");
  }
  auto created = io::run_blocking(
      reactors_->at(0), graph_.create({path_, "raw", *base::Options::from_key_values("size=1M")}));
  ASSERT_FALSE(created);
  EXPECT_EQ(created.error().message(), "Failed to get shared \"write\" lock");
  EXPECT_EQ(std::filesystem::file_size(path_), 65536u);
}

TEST_F(ImageLocksTest, QemuRefusesWhatIsWrittenHere) {
  auto writer = open(graph_, true, false);
  ASSERT_TRUE(writer);
  const std::string output = scratch_.path("output");
  const std::string command = "qemu-io -f raw -c 'read 0 512' '" + path_ + "' >" + output + " 2>&1";
  EXPECT_NE(std::system(command.c_str()), 0);
  std::ifstream file(output);
  std::string text((std::istreambuf_iterator<char>(file)), {});
  EXPECT_THAT(text, testing::HasSubstr("Failed to get \"write\" lock"));
  EXPECT_THAT(text, testing::HasSubstr("Is another process using the image [" + path_ + "]?"));
  close(*writer);
  EXPECT_EQ(std::system(command.c_str()), 0);
}

}  // namespace
}  // namespace platter::protocol
