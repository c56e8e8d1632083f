// Writes that are durable when they complete: what they make the file do.

#include <gtest/gtest.h>

#include "block/backend.h"
#include "block/graph.h"
#include "block/registry.h"
#include "io/reactor_group.h"
#include "support/scratch_directory.h"

namespace platter::format::qcow2 {
namespace {

using block::Permission;
using block::WriteFlag;

constexpr uint64_t kCluster = 65536;

class DurableWriteTest : public testing::Test {
 protected:
  void SetUp() override {
    auto group = io::ReactorGroup::start({});
    ASSERT_TRUE(group) << group.error().message();
    reactors_ = std::move(*group);
    auto created = run(graph_.create(
        {image(), "qcow2", *base::Options::from_key_values("size=4M,cluster_size=64k")}));
    ASSERT_TRUE(created) << created.error().message();
    // The first cluster has a place; the rest have none.
    auto backend = open("");
    ASSERT_TRUE(write(*backend, 0, {}));
    ASSERT_TRUE(run(backend->close()));
  }
  std::unique_ptr<block::Backend> open(const std::string& rules) {
    block::OpenRequest request;
    request.options = *base::Options::from_key_values(
        "driver=qcow2,file.driver=blkdebug,file.image.driver=file,file.image.filename=" + image() +
        rules);
    request.flags.read_only = false;
    request.policy = OpenPolicy::anything();
    auto opened =
        run(graph_.open(std::move(request), Permission::kConsistentRead | Permission::kWrite,
                        block::kAllPermissions));
    EXPECT_TRUE(opened) << opened.error().message();
    return std::move(*opened);
  }
  Result<void> write(block::Backend& backend, uint64_t offset, block::WriteFlags flags) {
    std::vector<uint8_t> bytes(4096, 0x5a);
    return run(backend.write(offset, io::BufferList(bytes), flags));
  }

  std::string image() const { return scratch_.path("image"); }
  template <typename T>
  T run(io::Task<T> task) {
    return io::run_blocking(reactors_->at(0), std::move(task));
  }

  support::ScratchDirectory scratch_;
  std::unique_ptr<io::ReactorGroup> reactors_;
  block::DriverRegistry registry_ = block::DriverRegistry::builtin();
  base::Log log_;
  block::Graph graph_{{registry_, io::system_files(), log_}};
};

constexpr const char* kNoFlush = ",file.inject-error.0.event=none,file.inject-error.0.iotype=flush";

TEST_F(DurableWriteTest, WhereTheMappingIsDurableNothingIsFlushed) {
  auto backend = open(kNoFlush);
  EXPECT_TRUE(write(*backend, 8192, WriteFlag::kFua));
  EXPECT_TRUE(write(*backend, 8 * kCluster, {}));
  EXPECT_FALSE(write(*backend, 8192, WriteFlag::kFua)) << "a mapping waits for a flush";
  EXPECT_FALSE(run(backend->close()));
}

TEST_F(DurableWriteTest, ANewMappingIsFlushed) {
  auto backend = open(kNoFlush);
  EXPECT_FALSE(write(*backend, kCluster, WriteFlag::kFua));
  EXPECT_FALSE(run(backend->close()));
}

TEST_F(DurableWriteTest, ZeroesAreFlushed) {
  auto backend = open(kNoFlush);
  EXPECT_FALSE(run(backend->zero(0, kCluster, WriteFlag::kFua)));
  EXPECT_FALSE(run(backend->close()));
}

TEST_F(DurableWriteTest, AfterAFlushTheDataAloneIsLeft) {
  auto backend = open("");
  EXPECT_TRUE(write(*backend, kCluster, WriteFlag::kFua));
  EXPECT_TRUE(write(*backend, kCluster, WriteFlag::kFua));
  EXPECT_TRUE(run(backend->close()));
  std::vector<uint8_t> bytes(4096);
  backend = open("");
  EXPECT_TRUE(run(backend->read(kCluster, io::BufferList(bytes))));
  EXPECT_EQ(bytes, std::vector<uint8_t>(4096, 0x5a));
  EXPECT_TRUE(run(backend->close()));
}

}  // namespace
}  // namespace platter::format::qcow2
