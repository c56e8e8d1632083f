// The file driver on a real file system, buffered and direct, over io_uring and over threads.

#include "protocol/file/driver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "block/graph.h"
#include "block/registry.h"
#include "io/reactor_group.h"
#include "support/scratch_directory.h"

namespace platter::protocol {
namespace {

using namespace block;

class FileDriverTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    auto group = io::ReactorGroup::start({.reactors = 1});
    ASSERT_TRUE(group) << group.error().message();
    reactors_ = std::move(*group);
  }
  std::string path(const std::string& name) const { return scratch_.path(name); }
  template <typename T>
  T run(io::Task<T> task) {
    return io::run_blocking(reactors_->at(0), std::move(task));
  }
  std::string content(const std::string& name) const {
    std::ifstream file(path(name));
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::unique_ptr<Backend> open(const std::string& name, bool writable,
                                const std::string& options = {}) {
    OpenRequest request;
    request.options = *base::Options::from_key_values("driver=file,filename=" + path(name) +
                                                      GetParam() + options);
    request.flags.read_only = !writable;
    request.discard_unmap = true;
    Permissions needed = Permission::kConsistentRead;
    if (writable) needed |= Permission::kWrite | Permission::kResize;
    auto opened = run(graph_.open(std::move(request), needed, kAllPermissions));
    EXPECT_TRUE(opened) << opened.error().message();
    return std::move(*opened);
  }
  BlockStatus status(Backend& backend, uint64_t offset, uint64_t length) {
    auto status =
        run(backend.status_above(nullptr, offset, length, StatusDetail::kPrecise, nullptr));
    EXPECT_TRUE(status);
    return *status;
  }

  support::ScratchDirectory scratch_;
  std::unique_ptr<io::ReactorGroup> reactors_;
  DriverRegistry registry_ = DriverRegistry::builtin();
  base::Log log_;
  Graph graph_{{registry_, io::system_files(), log_}};
};

TEST_P(FileDriverTest, WritesAnywhereAndReadsPastAnOddEnd) {
  std::ofstream(path("a")) << std::string(1000, 'a');
  auto backend = open("a", true);
  std::vector<uint8_t> data(10, 'b'), back(1000);
  EXPECT_TRUE(run(backend->write(990, io::BufferList(data), WriteFlag::kFua)));
  EXPECT_TRUE(run(backend->read(0, io::BufferList(back))));
  EXPECT_EQ(back[989], 'a');
  EXPECT_EQ(back[999], 'b');
  EXPECT_TRUE(run(backend->flush()));
  EXPECT_TRUE(run(backend->close()));
  EXPECT_EQ(content("a").substr(0, 1000), std::string(990, 'a') + std::string(10, 'b'));
}

TEST_P(FileDriverTest, ZeroesDiscardsAndTellsOfHoles) {
  std::ofstream(path("a")) << std::string(1 << 20, 'a');
  auto backend = open("a", true);
  EXPECT_TRUE(status(*backend, 0, 1 << 20).data);
  EXPECT_TRUE(run(backend->zero(65536, 65536, WriteFlag::kMayUnmap)));
  EXPECT_TRUE(run(backend->discard(262144, 65536)));
  EXPECT_EQ(backend->node().driver().statistics().dump(),
            "{\"discard-nb-ok\": 1, \"discard-nb-failed\": 0, \"discard-bytes-ok\": 65536}");
  EXPECT_TRUE(run(backend->zero(524288 + 100, 1000)));
  const BlockStatus data = status(*backend, 0, 1 << 20);
  EXPECT_TRUE(data.data);
  EXPECT_EQ(data.length, 65536u);
  const BlockStatus hole = status(*backend, 65536, 1 << 20);
  EXPECT_TRUE(hole.zero);
  EXPECT_EQ(hole.length, 65536u);
  EXPECT_EQ(hole.host_offset, 65536u);
  EXPECT_TRUE(status(*backend, 262144, 65536).zero);
  EXPECT_FALSE(status(*backend, 1 << 19, 1 << 19).zero);
  EXPECT_TRUE(status(*backend, 1 << 19, 1 << 19).eof);
  EXPECT_TRUE(run(backend->close()));
  const std::string bytes = content("a");
  EXPECT_EQ(bytes.substr(65536, 65536), std::string(65536, '\0'));
  EXPECT_EQ(bytes.substr(524288, 1200),
            std::string(100, 'a') + std::string(1000, '\0') + std::string(100, 'a'));
}

TEST_P(FileDriverTest, GrowsByWritesZeroesAndResizes) {
  std::ofstream(path("a")) << std::string(4096, 'a');
  auto backend = open("a", true);
  Node& node = backend->node();
  std::vector<uint8_t> data(4096, 'b');
  EXPECT_TRUE(run(node.write(8192, io::BufferList(data))));
  EXPECT_EQ(node.size(), 12288u);
  EXPECT_TRUE(run(node.zero(12288, 65536)));
  EXPECT_EQ(node.size(), 12288u + 65536);
  EXPECT_TRUE(run(backend->resize(1 << 20, Preallocation::kFull, true)));
  EXPECT_TRUE(run(backend->resize(2 << 20, Preallocation::kFalloc, true)));
  auto metadata = run(backend->resize(3 << 20, Preallocation::kMetadata, true));
  ASSERT_FALSE(metadata);
  EXPECT_EQ(metadata.error().message(), "Unsupported preallocation mode: metadata");
  auto shrink = run(backend->resize(1 << 20, Preallocation::kFull, true));
  ASSERT_FALSE(shrink);
  EXPECT_EQ(shrink.error().message(), "Preallocation can't be used for shrinking files");
  auto allocated = run(node.driver().allocated_size());
  ASSERT_TRUE(allocated);
  EXPECT_GE(*allocated, uint64_t{3} << 19);
  EXPECT_TRUE(run(backend->resize(8192, Preallocation::kOff, true)));
  EXPECT_TRUE(run(backend->close()));
  EXPECT_EQ(content("a"), std::string(4096, 'a') + std::string(4096, '\0'));
}

TEST_P(FileDriverTest, BecomesWritableWhenTheFirstWriterComes) {
  std::ofstream(path("a")) << std::string(4096, 'a');
  OpenRequest request;
  request.options = *base::Options::from_key_values("driver=file,filename=" + path("a") +
                                                    GetParam() + ",auto-read-only=on");
  request.flags.read_only = false;
  auto reader = run(graph_.open(std::move(request), Permission::kConsistentRead, kAllPermissions));
  ASSERT_TRUE(reader) << reader.error().message();
  auto writer = run(
      graph_.attach((*reader)->node(), Permission::kWrite | Permission::kResize, kAllPermissions));
  ASSERT_TRUE(writer) << writer.error().message();
  std::vector<uint8_t> data(4096, 'b'), back(4096);
  EXPECT_TRUE(run((*writer)->write(0, io::BufferList(data))));
  EXPECT_TRUE(run((*reader)->read(0, io::BufferList(back))));
  EXPECT_EQ(data, back);
  EXPECT_TRUE(run((*writer)->close()));
  EXPECT_TRUE(run((*reader)->close()));
}

INSTANTIATE_TEST_SUITE_P(Modes, FileDriverTest,
                         testing::Values("", ",cache.direct=on", ",aio=threads",
                                         ",aio=native,cache.direct=on", ",cache.no-flush=on"),
                         [](const auto& mode) {
                           std::string name = "Mode";
                           for (const char c : mode.param) {
                             if (std::isalnum(static_cast<unsigned char>(c))) name += c;
                           }
                           return name;
                         });

}  // namespace
}  // namespace platter::protocol
