// Freed clusters and those who still read them.

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/try.h"
#include "block/debug.h"
#include "block/test_disk.h"
#include "io/gate.h"
#include "support/scratch_directory.h"

namespace platter::format::qcow2 {
namespace {

using block::Permission;

constexpr uint64_t kCluster = 65536;
constexpr uint64_t kClusters = 64;

class ReclaimTest : public block::DiskTest {
 protected:
  ReclaimTest() : DiskTest(2) {}
  void SetUp() override {
    auto created = run(graph_.create(
        {image(), "qcow2", *base::Options::from_key_values("size=4M,cluster_size=64k")}));
    ASSERT_TRUE(created) << created.error().message();
    open("driver=qcow2,file.driver=blkdebug,file.image.driver=file,file.image.filename=" + image());
  }

  std::string image() const { return scratch_.path("image"); }
  void write(uint64_t cluster, uint8_t value) {
    std::vector<uint8_t> bytes(kCluster, value);
    auto written = run(backend_->write(cluster * kCluster, io::BufferList(bytes)));
    ASSERT_TRUE(written) << written.error().message();
  }

  support::ScratchDirectory scratch_;
};

io::Task<void> read_into(block::Backend& backend, io::BufferList bytes, Result<void>& result) {
  result = co_await backend.read(0, bytes);
}

TEST_F(ReclaimTest, AClusterThatIsBeingReadGoesToNobodyElse) {
  write(0, 1);
  ASSERT_TRUE(run(backend_->flush()));
  auto* points = backend_->node().child("file")->node().driver().debug_points();
  ASSERT_NE(points, nullptr);
  ASSERT_TRUE(points->add_breakpoint(block::DebugEvent::kReadAio, "reader"));

  // The reader has looked up where its cluster lies, and has not read it yet.
  std::vector<uint8_t> seen(kCluster, 9);
  Result<void> read = fail(EIO, "never ended");
  io::Gate gate;
  gate.spawn(reactors_->at(1), read_into(*backend_, io::BufferList(seen), read));
  while (!points->is_held("reader")) std::this_thread::sleep_for(std::chrono::milliseconds(1));

  ASSERT_TRUE(run(backend_->discard(0, kCluster)));
  for (uint64_t cluster = 1; cluster < kClusters; ++cluster) {
    ASSERT_TRUE(run(backend_->flush()));
    write(cluster, 2);
  }
  ASSERT_TRUE(points->resume("reader"));
  run(gate.close());
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(seen, std::vector<uint8_t>(kCluster, 1));
}

// Counts lag behind while the dirty bit stands for them: it goes with the last user, not the first.
TEST_F(ReclaimTest, OneUserLeavesAndTheOtherStaysDirty) {
  close();
  ASSERT_TRUE(run(graph_.create(
      {image(), "qcow2", *base::Options::from_key_values("size=4M,lazy_refcounts=on")})));
  block::OpenRequest request;
  request.filename = image();
  request.format = "qcow2";
  request.flags.read_only = false;
  request.policy = OpenPolicy::anything();
  const block::Permissions needed = Permission::kConsistentRead | Permission::kWrite;
  auto first = run(graph_.open(std::move(request), needed, block::kAllPermissions));
  ASSERT_TRUE(first) << first.error().message();
  auto second = run(graph_.attach((*first)->node(), needed, block::kAllPermissions));
  ASSERT_TRUE(second) << second.error().message();
  const auto dirty = [this] {
    std::ifstream file(image(), std::ios::binary);
    char header[80];
    file.read(header, sizeof header);
    return (header[79] & 1) != 0;
  };
  std::vector<uint8_t> bytes(kCluster, 5);
  ASSERT_TRUE(run((*first)->write(0, io::BufferList(bytes))));
  ASSERT_TRUE(run((*second)->write(kCluster, io::BufferList(bytes))));
  ASSERT_TRUE(run((*first)->close()));
  EXPECT_TRUE(dirty());
  ASSERT_TRUE(run((*second)->write(2 * kCluster, io::BufferList(bytes))));
  ASSERT_TRUE(run((*second)->flush()));
  EXPECT_TRUE(dirty());
  ASSERT_TRUE(run((*second)->close()));
  EXPECT_FALSE(dirty());
}

// Once nobody reads it any more it serves again: the file does not grow for ever.
TEST_F(ReclaimTest, AClusterThatNobodyReadsServesAgain) {
  for (int turn = 0; turn < 200; ++turn) {
    write(0, 1);
    ASSERT_TRUE(run(backend_->discard(0, kCluster)));
    ASSERT_TRUE(run(backend_->flush()));
  }
  EXPECT_LT(std::filesystem::file_size(image()), 100 * kCluster);
}

}  // namespace
}  // namespace platter::format::qcow2
