#include "block/graph.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "block/registry.h"
#include "io/reactor_group.h"

namespace platter::block {
namespace {

using testing::HasSubstr;

// A graph over the real file system, reactors to run on and a scratch directory.
class GraphTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/platter-graph-XXXXXX";
    directory_ = mkdtemp(name);
    auto group = io::ReactorGroup::start({.reactors = 2});
    ASSERT_TRUE(group) << group.error().message();
    reactors_ = std::move(*group);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::string path(const std::string& name) const { return directory_ + "/" + name; }
  void write_file(const std::string& name, const std::string& content) {
    std::ofstream(path(name)) << content;
  }
  template <typename T>
  T run(io::Task<T> task) {
    return io::run_blocking(reactors_->at(0), std::move(task));
  }

  static OpenRequest request(std::string filename, std::string format, bool writable) {
    OpenRequest request;
    request.filename = std::move(filename);
    request.format = std::move(format);
    request.flags.read_only = !writable;
    request.policy = OpenPolicy::anything();
    return request;
  }
  Result<std::unique_ptr<Backend>> open(OpenRequest request, Permissions shared = kAllPermissions) {
    Permissions needed = Permission::kConsistentRead;
    if (!request.flags.read_only) needed |= Permission::kWrite | Permission::kResize;
    return run(graph_.open(std::move(request), needed, shared));
  }
  Result<std::unique_ptr<Backend>> open_options(const std::string& text, bool writable) {
    OpenRequest request = GraphTest::request("", "", writable);
    request.options = *base::Options::from_key_values(text);
    return open(std::move(request));
  }
  std::string open_error(OpenRequest request) {
    auto opened = open(std::move(request));
    if (opened) {
      EXPECT_TRUE(run((*opened)->close()));
      return "opened";
    }
    return opened.error().message();
  }

  std::string directory_;
  std::unique_ptr<io::ReactorGroup> reactors_;
  DriverRegistry registry_ = DriverRegistry::builtin();
  base::Log log_;
  Graph graph_{{registry_, io::system_files(), log_}};
};

TEST_F(GraphTest, ReadsWhatItWroteThroughRawAndFile) {
  ASSERT_TRUE(run(graph_.create({path("a"), "raw", *base::Options::from_key_values("size=1M")})));
  auto backend = open(request(path("a"), "raw", true));
  ASSERT_TRUE(backend) << backend.error().message();
  EXPECT_EQ((*backend)->size(), 1u << 20);
  std::vector<uint8_t> data(5000, 0x5a), back(5000);
  EXPECT_TRUE(run((*backend)->write(12345, io::BufferList(data))));
  EXPECT_TRUE(run((*backend)->read(12345, io::BufferList(back))));
  EXPECT_EQ(data, back);
  EXPECT_TRUE(run((*backend)->zero(12345, 100)));
  EXPECT_TRUE(run((*backend)->flush()));
  EXPECT_TRUE(run((*backend)->read(12345, io::BufferList(back))));
  EXPECT_EQ(back[99], 0);
  EXPECT_EQ(back[100], 0x5a);
  EXPECT_FALSE(run((*backend)->read((1 << 20) - 10, io::BufferList(data))));
  const BackendStatistics statistics = (*backend)->statistics();
  EXPECT_EQ(statistics.read.operations, 2u);
  EXPECT_EQ(statistics.read.failed, 1u);
  EXPECT_EQ(statistics.write.bytes, 5000u);
  EXPECT_TRUE(run((*backend)->close()));
  EXPECT_TRUE(graph_.nodes().empty());
}

}  // namespace
}  // namespace platter::block
