#include <gtest/gtest.h>

#include "block/graph.h"
#include "block/registry.h"
#include "io/gate.h"
#include "io/reactor_group.h"
#include "support/scratch_directory.h"

namespace platter::filter {
namespace {

using namespace block;

constexpr uint64_t kCluster = 65536;
constexpr uint64_t kSize = 16 * kCluster;

class CopyOnReadTest : public testing::Test {
 protected:
  void SetUp() override {
    auto group = io::ReactorGroup::start({.reactors = 2});
    ASSERT_TRUE(group) << group.error().message();
    reactors_ = std::move(*group);
    for (const char* file : {"base", "top"}) {
      CreateRequest request;
      request.filename = scratch_.path(file);
      request.format = "qcow2";
      request.options.set("size", kSize);
      ASSERT_TRUE(run(graph_.create(std::move(request))));
    }
  }
  template <typename T>
  T run(io::Task<T> task) {
    return io::run_blocking(reactors_->at(0), std::move(task));
  }
  std::unique_ptr<Backend> open(const std::string& options) {
    OpenRequest request;
    request.options = *base::Options::from_key_values(options);
    request.flags.read_only = false;
    auto opened = run(graph_.open(
        std::move(request), Permission::kConsistentRead | Permission::kWrite, kAllPermissions));
    EXPECT_TRUE(opened) << opened.error().message();
    return std::move(*opened);
  }
  bool allocated(Backend& backend, uint64_t offset) {
    return run(backend.node().skip_filters().status(offset, 1, StatusDetail::kFast))->allocated;
  }

  support::ScratchDirectory scratch_;
  std::unique_ptr<io::ReactorGroup> reactors_;
  DriverRegistry registry_ = DriverRegistry::builtin();
  base::Log log_;
  Graph graph_{{registry_, io::system_files(), log_}};
};

TEST_F(CopyOnReadTest, WhatIsReadFromBelowStaysAbove) {
  std::vector<uint8_t> data(4 * kCluster, 5), back(4 * kCluster);
  auto base = open("driver=qcow2,file.filename=" + scratch_.path("base"));
  ASSERT_TRUE(run(base->write(kCluster, io::BufferList(data))));
  ASSERT_TRUE(run(base->close()));
  auto top =
      open("driver=copy-on-read,file.driver=qcow2,file.file.filename=" + scratch_.path("top") +
           ",file.backing.driver=qcow2,file.backing.file.filename=" + scratch_.path("base"));
  std::vector<uint8_t> one(1, 9);
  ASSERT_TRUE(run(top->write(2 * kCluster + 7, io::BufferList(one))));
  ASSERT_TRUE(run(top->read(3 * kCluster - 1, io::BufferList(back.data(), 2))));
  EXPECT_FALSE(allocated(*top, kCluster));
  EXPECT_TRUE(allocated(*top, 2 * kCluster));
  EXPECT_TRUE(allocated(*top, 3 * kCluster));
  EXPECT_FALSE(allocated(*top, 4 * kCluster));
  ASSERT_TRUE(run(top->read(kCluster, io::BufferList(back))));
  data[kCluster + 7] = 9;
  EXPECT_EQ(back, data);
  EXPECT_TRUE(allocated(*top, 4 * kCluster));
  EXPECT_FALSE(allocated(*top, 0));
  EXPECT_TRUE(run(top->close()));
}

io::Task<void> keep_writing(Backend& backend, uint8_t fill, bool& good) {
  std::vector<uint8_t> bytes(512, fill);
  for (uint64_t offset = 0; offset < kSize; offset += 4096) {
    if (!co_await backend.write(offset, io::BufferList(bytes))) good = false;
  }
}
io::Task<void> keep_reading(Backend& backend, bool& good) {
  std::vector<uint8_t> bytes(4096);
  for (uint64_t offset = 0; offset < kSize; offset += 4096) {
    if (!co_await backend.read(offset, io::BufferList(bytes))) good = false;
  }
}

TEST_F(CopyOnReadTest, ACopyNeverUndoesAWrite) {
  std::vector<uint8_t> data(kSize, 5);
  auto base = open("driver=qcow2,file.filename=" + scratch_.path("base"));
  ASSERT_TRUE(run(base->write(0, io::BufferList(data))));
  ASSERT_TRUE(run(base->close()));
  auto top =
      open("driver=copy-on-read,file.driver=qcow2,file.file.filename=" + scratch_.path("top") +
           ",file.backing.driver=qcow2,file.backing.file.filename=" + scratch_.path("base"));
  bool written = true, read = true;
  io::Gate gate;
  gate.spawn(reactors_->at(0), keep_writing(*top, 9, written));
  gate.spawn(reactors_->at(1), keep_reading(*top, read));
  run(gate.close());
  EXPECT_TRUE(written);
  EXPECT_TRUE(read);
  ASSERT_TRUE(run(top->read(0, io::BufferList(data))));
  for (size_t i = 0; i < data.size(); ++i) ASSERT_EQ(data[i], i % 4096 < 512 ? 9 : 5) << i;
  EXPECT_TRUE(run(top->close()));
}

}  // namespace
}  // namespace platter::filter
