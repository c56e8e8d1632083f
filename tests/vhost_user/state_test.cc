// A device's state is saved while it is at work, and another process goes on from it.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>

#include "support/scratch_directory.h"
#include "vhost_user/back_end.h"
#include "vhost_user/ring_tests.h"

namespace platter::front_end {
namespace {

constexpr uint32_t kRingSize = 64;
constexpr uint32_t kBytes = 4096;
constexpr uint64_t kRequestSectors = kBytes / kSectorBytes;
constexpr uint32_t kWceOffset = 32;
constexpr uint8_t kAtWork = 15;

class StateTest : public testing::TestWithParam<RingOptions> {
 protected:
  void SetUp() override { make_disk("disk.qcow2", "32M"); }
  void make_disk(const std::string& name, const std::string& size) {
    const std::string command =
        fmt::format("qemu-img create -q -f qcow2 {} {}", scratch_.path(name), size);
    ASSERT_EQ(std::system(command.c_str()), 0);
  }
  void start(const std::string& name = "disk.qcow2") {
    back_end_.reset();
    auto started =
        BackEnd::start("platter", {.image = scratch_.path(name), .socket = socket(), .queues = 2});
    ASSERT_TRUE(started) << started.error().message();
    back_end_.emplace(std::move(*started));
  }
  std::string socket() const { return scratch_.path("socket"); }
  std::unique_ptr<BlockDevice> connect() {
    RingOptions ring = GetParam();
    ring.size = kRingSize;
    auto device = BlockDevice::connect(
        socket(), {.queues = 2,
                   .ring = ring,
                   .ram_bytes = 16ULL << 20,
                   .buffer_bytes = kBytes,
                   .protocol_features = protocol_feature::kReplyAck | protocol_feature::kStatus |
                                        protocol_feature::kDeviceState});
    if (device) return std::move(*device);
    ADD_FAILURE() << device.error().message();
    return nullptr;
  }
  // As many writes as there is room for; sector by slot.
  static std::map<uint32_t, uint64_t> fill(BlockQueue& queue, uint64_t sector) {
    std::map<uint32_t, uint64_t> out;
    while (queue.in_flight() < kRingSize / 3) {
      const uint32_t slot = queue.next_slot();
      std::ranges::fill(queue.buffer(slot), static_cast<uint8_t>(sector / kRequestSectors));
      if (!queue.add(kWrite, sector, kBytes)) break;
      out[slot] = sector;
      sector += kRequestSectors;
    }
    queue.publish();
    return out;
  }
  static uint8_t wce(BlockDevice& device) {
    const auto config = device.front_end().get_config(kWceOffset, 1);
    EXPECT_TRUE(config);
    return config ? config->at(0) : 0xff;
  }

  support::ScratchDirectory scratch_;
  std::optional<BackEnd> back_end_;
};

TEST_P(StateTest, AnotherProcessGoesOn) {
  start();
  const auto device = connect();
  ASSERT_TRUE(device);
  ASSERT_NE(device->protocol_features() & protocol_feature::kDeviceState, 0U);
  ASSERT_TRUE(device->front_end().set_status(kAtWork));
  EXPECT_EQ(wce(*device), 1);
  const uint8_t off[] = {0};
  ASSERT_TRUE(device->front_end().set_config(kWceOffset, off));
  constexpr int kMoves = 3;
  for (int move = 0; move < kMoves; ++move) {
    // The rings have turned, by different amounts.
    for (int round = 0; round < 5; ++round) expect_all(device->queue(0), fill(device->queue(0), 0));
    const auto first = fill(device->queue(0), 0);
    const auto second = fill(device->queue(1), 32 << 10);
    ASSERT_TRUE(device->stop());
    const auto state = device->save_state();
    ASSERT_TRUE(state) << state.error().message();
    EXPECT_EQ(back_end_->stop(), 0);
    start();
    const auto again = device->reconnect(socket(), *state);
    ASSERT_TRUE(again) << again.error().message();
    EXPECT_EQ(wce(*device), 0);
    EXPECT_EQ(device->front_end().get_status().value_or(0), kAtWork);
    expect_all(device->queue(0), first);
    expect_all(device->queue(1), second);
  }
  std::vector<uint8_t> found(kBytes);
  for (uint64_t i = 0; i < kRingSize / 3; ++i) {
    ASSERT_EQ(device->read(i * kRequestSectors, found).value_or(kIoError), kOk);
    EXPECT_EQ(found, std::vector<uint8_t>(kBytes, static_cast<uint8_t>(i)));
  }
  EXPECT_EQ(back_end_->stop(), 0);
}

TEST_P(StateTest, AMigrationThatFailsLeavesTheDeviceAtWork) {
  start();
  const auto device = connect();
  ASSERT_TRUE(device);
  expect_all(device->queue(0), fill(device->queue(0), 0));
  EXPECT_FALSE(device->save_state()) << "of rings that run";
  ASSERT_TRUE(device->stop());
  ASSERT_TRUE(device->save_state());
  ASSERT_TRUE(device->start());
  expect_all(device->queue(0), fill(device->queue(0), 0));
}

TEST_P(StateTest, AnotherDiskRefusesIt) {
  start();
  const auto device = connect();
  ASSERT_TRUE(device);
  ASSERT_TRUE(device->stop());
  auto state = device->save_state();
  ASSERT_TRUE(state) << state.error().message();
  EXPECT_TRUE(device->load_state(*state));
  make_disk("other.qcow2", "33M");
  start("other.qcow2");
  EXPECT_FALSE(device->reconnect(socket(), *state));
  state->at(8) = 2;
  EXPECT_FALSE(device->load_state(*state)) << "of another version";
  EXPECT_TRUE(back_end_->running());
}

INSTANTIATE_TEST_SUITE_P(All, StateTest,
                         testing::Values(RingOptions{.event_index = true},
                                         RingOptions{.packed = true, .event_index = true}),
                         [](const auto& each) { return each.param.packed ? "packed" : "split"; });

}  // namespace
}  // namespace platter::front_end
