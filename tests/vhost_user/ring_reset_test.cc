// One queue is stopped, and comes back with another size and in another place, while the others
// carry on (virtio 1.2, 2.6.1: a front-end does it by GET_VRING_BASE and by setting the ring up
// again).
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <thread>

#include "support/scratch_directory.h"
#include "vhost_user/back_end.h"
#include "vhost_user/ring_tests.h"

namespace platter::front_end {
namespace {

constexpr uint32_t kBytes = 4096;
constexpr uint64_t kBlockSectors = kBytes / kSectorBytes;
constexpr uint32_t kLargest = 128;
constexpr uint32_t kSizes[] = {16, 128, 32, 64, 8};
constexpr unsigned kResets = 25;
// Blocks of the disk that each queue has for itself.
constexpr uint64_t kBlocks = 256;

struct Shape {
  RingOptions ring;
  bool tracks;
};

class RingResetTest : public testing::TestWithParam<Shape> {};

// Writes that fill the queue, each another block, marked with the round; and what comes back of
// them.
void write_round(BlockQueue& queue, uint64_t first_block, uint8_t mark) {
  unsigned out = 0;
  for (uint64_t block = 0; block < kBlocks; ++block, ++out) {
    const uint32_t slot = queue.next_slot();
    std::ranges::fill(queue.buffer(slot), mark);
    if (!queue.add(kWrite, (first_block + block) * kBlockSectors, kBytes)) break;
    if (queue.in_flight() + 1 >= queue.ring().options().size / 3) break;
  }
  queue.publish();
}

void collect_all(BlockQueue& queue) {
  while (queue.in_flight() != 0) {
    const auto done = queue.collect();
    if (!done) {
      ASSERT_TRUE(queue.wait(kLimit)) << queue.in_flight() << " are missing";
      continue;
    }
    ASSERT_EQ(done->status, kOk);
  }
}

void expect_block(BlockQueue& queue, uint64_t block, uint8_t mark) {
  const auto slot = queue.add(kRead, block * kBlockSectors, kBytes);
  ASSERT_TRUE(slot);
  queue.publish();
  collect_all(queue);
  const auto found = queue.buffer(*slot);
  EXPECT_TRUE(std::ranges::all_of(found, [&](uint8_t byte) { return byte == mark; }));
}

TEST_P(RingResetTest, OthersCarryOn) {
  support::ScratchDirectory scratch;
  const std::string socket = scratch.path("socket");
  auto back_end = BackEnd::start(
      "platter", {.image = {}, .node = "driver=memory,size=16M", .socket = socket, .queues = 2});
  ASSERT_TRUE(back_end) << back_end.error().message();
  DeviceOptions options = {
      .queues = 2, .ring = GetParam().ring, .ram_bytes = 64ULL << 20, .buffer_bytes = kBytes};
  options.ring.size = kLargest;
  if (GetParam().tracks) options.protocol_features |= protocol_feature::kInflight;
  auto connected = BlockDevice::connect(socket, options);
  ASSERT_TRUE(connected) << connected.error().message();
  BlockDevice& device = **connected;

  std::atomic<bool> ends = false;
  std::atomic<unsigned> rounds = 0;
  std::thread load([&] {
    BlockQueue& queue = device.queue(1);
    for (uint8_t mark = 1; !ends && !testing::Test::HasFailure(); ++mark) {
      write_round(queue, kBlocks, mark);
      collect_all(queue);
      expect_block(queue, kBlocks, mark);
      ++rounds;
    }
  });
  for (unsigned reset = 0; reset < kResets && !HasFailure(); ++reset) {
    const auto mark = static_cast<uint8_t>(reset + 1);
    BlockQueue& old = device.queue(0);
    write_round(old, 0, mark);
    const uint32_t sent = old.in_flight();
    while (!old.ring().any_used()) ASSERT_TRUE(old.wait(kLimit));
    // With requests under way: what was taken from the ring is done before the answer, the rest is
    // the driver's again.
    const auto base = device.stop_queue(0);
    ASSERT_TRUE(base) << base.error().message();
    while (const auto done = old.collect()) EXPECT_EQ(done->status, kOk);
    if (!GetParam().ring.packed) {
      // Requests before these: the read of the round before.
      const uint32_t earlier = reset == 0 ? 0 : 1;
      EXPECT_EQ(sent - old.in_flight() + earlier, *base);
    }
    const auto replaced = device.replace_queue(0, kSizes[reset % std::size(kSizes)]);
    ASSERT_TRUE(replaced) << replaced.error().message();
    expect_block(device.queue(0), 0, mark);
    const unsigned before = rounds;
    while (rounds == before && !HasFailure()) std::this_thread::yield();
  }
  ends = true;
  load.join();
  EXPECT_EQ(back_end->stop(), 0);
}

INSTANTIATE_TEST_SUITE_P(Rings, RingResetTest,
                         testing::Values(Shape{{}, false},
                                         Shape{{.event_index = true, .indirect = true}, true},
                                         Shape{{.packed = true}, false},
                                         Shape{{.packed = true, .event_index = true}, true}),
                         [](const auto& info) {
                           return fmt::format("{}{}", info.param.ring.packed ? "packed" : "split",
                                              info.param.tracks ? "_inflight" : "");
                         });

}  // namespace
}  // namespace platter::front_end
