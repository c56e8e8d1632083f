// blkdebug below formats, as tests use it.
#include <gtest/gtest.h>

#include <cerrno>
#include <chrono>
#include <thread>

#include "block/graph.h"
#include "block/registry.h"
#include "io/gate.h"
#include "io/reactor_group.h"

namespace platter::filter {
namespace {

using namespace block;

constexpr std::string_view kBelow =
    "file.driver=blkdebug,file.image.driver=memory,file.image.size=1M";

class BlkdebugTest : public testing::Test {
 protected:
  void SetUp() override {
    auto group = io::ReactorGroup::start({.reactors = 2});
    ASSERT_TRUE(group) << group.error().message();
    reactors_ = std::move(*group);
  }
  template <typename T>
  T run(io::Task<T> task) {
    return io::run_blocking(reactors_->at(0), std::move(task));
  }
  Result<std::unique_ptr<Backend>> open(const std::string& options) {
    OpenRequest request;
    request.options =
        *base::Options::from_key_values("driver=raw," + std::string(kBelow) + options);
    request.flags.read_only = false;
    request.discard_unmap = true;
    return run(graph_.open(std::move(request), Permission::kConsistentRead | Permission::kWrite,
                           kAllPermissions));
  }
  int read(Backend& backend, uint64_t offset, size_t length) {
    std::vector<uint8_t> bytes(length);
    const auto result = run(backend.read(offset, io::BufferList(bytes)));
    return result ? 0 : result.error().code();
  }
  int write(Backend& backend, uint64_t offset, size_t length, uint8_t fill) {
    std::vector<uint8_t> bytes(length, fill);
    const auto result = run(backend.write(offset, io::BufferList(bytes)));
    return result ? 0 : result.error().code();
  }

  std::unique_ptr<io::ReactorGroup> reactors_;
  DriverRegistry registry_ = DriverRegistry::builtin();
  base::Log log_;
  Graph graph_{{registry_, io::system_files(), log_}};
};

TEST_F(BlkdebugTest, RequestsFailAsTheRulesSay) {
  auto backend = open(
      ",file.inject-error.0.event=read_aio,file.inject-error.0.once=on,file.inject-error.0.errno=28"
      ",file.inject-error.1.event=none,file.inject-error.1.iotype=discard");
  ASSERT_TRUE(backend) << backend.error().message();
  EXPECT_EQ(read(**backend, 0, 512), ENOSPC);
  EXPECT_EQ(read(**backend, 0, 512), 0);
  EXPECT_EQ(write(**backend, 0, 512, 1), 0);
  EXPECT_TRUE(run((*backend)->close()));
}

TEST_F(BlkdebugTest, LimitsAreWhatWasAskedFor) {
  auto backend = open(",file.align=4k,file.max-transfer=8k,file.opt-write-zero=16k");
  ASSERT_TRUE(backend) << backend.error().message();
  const Limits& limits = (*backend)->node().child("file")->node().limits();
  EXPECT_EQ(limits.request_alignment, 4096u);
  EXPECT_EQ(limits.max_transfer, 8192u);
  EXPECT_EQ(limits.zero_alignment, 16384u);
  EXPECT_EQ(write(**backend, 100, 50000, 7), 0);
  EXPECT_TRUE(run((*backend)->zero(1000, 40000)));
  std::vector<uint8_t> bytes(60000);
  EXPECT_TRUE(run((*backend)->read(0, io::BufferList(bytes))));
  for (size_t i = 0; i < bytes.size(); ++i) {
    const bool written = i >= 100 && i < 50100 && (i < 1000 || i >= 41000);
    ASSERT_EQ(bytes[i], written ? 7 : 0) << i;
  }
  EXPECT_TRUE(run((*backend)->close()));
  EXPECT_EQ(open(",file.align=513").error().message(), "Cannot meet constraints with align 513");
  EXPECT_EQ(open(",file.align=4k,file.max-discard=100").error().message(),
            "Cannot meet constraints with max-discard 100");
  EXPECT_EQ(open(",file.inject-error.1.event=none").error().message(),
            "Unused option '1.event' for [inject-error]");
}

io::Task<void> write_and_note(Backend& backend, io::BufferList bytes, bool& done) {
  const auto written = co_await backend.write(0, bytes);
  done = written.has_value();
}

TEST_F(BlkdebugTest, ABreakpointHoldsOneRequestUntilItIsLetGo) {
  auto backend = open("");
  ASSERT_TRUE(backend) << backend.error().message();
  DebugPoints* points = (*backend)->node().child("file")->node().driver().debug_points();
  ASSERT_NE(points, nullptr);
  ASSERT_TRUE(points->add_breakpoint(DebugEvent::kWriteAio, "A"));
  std::vector<uint8_t> bytes(4096, 9);
  bool done = false;
  io::Gate gate;
  gate.spawn(reactors_->at(1), write_and_note(**backend, io::BufferList(bytes), done));
  while (!points->is_held("A")) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(read(**backend, 0, 512), 0);
  EXPECT_EQ(write(**backend, 8192, 512, 1), 0);
  EXPECT_EQ(gate.inside(), 1u);
  EXPECT_TRUE(points->resume("A"));
  run(gate.close());
  EXPECT_TRUE(done);
  EXPECT_TRUE(run((*backend)->close()));
}

TEST_F(BlkdebugTest, ANameHasAConfigurationAndAnImage) {
  OpenRequest request;
  request.filename = "blkdebug:nothing";
  auto refused = run(graph_.open(request, Permission::kConsistentRead, kAllPermissions));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message(),
            "Could not open 'blkdebug:nothing': blkdebug requires both config file and image path");
  request.filename = "blkdebug::/nonexistent/image";
  refused = run(graph_.open(request, Permission::kConsistentRead, kAllPermissions));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ENOENT);
}

}  // namespace
}  // namespace platter::filter
