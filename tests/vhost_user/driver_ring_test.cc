// The driver's rings, with the device's: each request arrives once and as it was, each end of one
// is heard of, and nobody sleeps while the other waits.
#include "vhost_user/driver_ring.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "base/bytes.h"
#include "vhost_user/ring_tests.h"
#include "virtio/features.h"
#include "virtio/queue.h"

namespace platter::front_end {
namespace {

constexpr uint64_t kRamAddress = 1 << 20;
constexpr uint64_t kRamBytes = 8 << 20;

std::vector<RingOptions> all_options() {
  std::vector<RingOptions> all;
  for (unsigned bits = 0; bits < 8; ++bits) {
    all.push_back({.size = 16,
                   .packed = (bits & 4) != 0,
                   .event_index = (bits & 2) != 0,
                   .indirect = (bits & 1) != 0});
  }
  return all;
}

class DriverRingTest : public testing::TestWithParam<RingOptions> {
 protected:
  void SetUp() override {
    auto ram = GuestRam::make(kRamAddress, kRamBytes);
    ASSERT_TRUE(ram);
    ram_.emplace(std::move(*ram));
    ring_ = DriverRing::make(*ram_, GetParam());
    const uint64_t features = virtio::kVersion1 | (GetParam().packed ? virtio::kPackedRing : 0) |
                              (GetParam().event_index ? virtio::kEventIndex : 0) |
                              (GetParam().indirect ? virtio::kIndirectDescriptors : 0);
    auto memory = virtio::GuestMemory::make({{kRamAddress, kRamBytes, ram_->at(kRamAddress), {}}});
    ASSERT_TRUE(memory);
    auto queue = virtio::Queue::make(
        {.size = GetParam().size,
         .descriptor_area = ring_->descriptor_area(),
         .driver_area = ring_->driver_area(),
         .device_area = ring_->device_area(),
         .features = features,
         .state = GetParam().packed ? virtio::QueueOptions::kFreshPacked : virtio::QueueState{}},
        std::move(*memory));
    ASSERT_TRUE(queue) << queue.error().message();
    queue_ = std::move(*queue);
    data_ = ram_->take(1 << 20);
  }

  std::optional<GuestRam> ram_;
  std::unique_ptr<DriverRing> ring_;
  std::unique_ptr<virtio::Queue> queue_;
  uint64_t data_ = 0;
};

TEST_P(DriverRingTest, EveryRequestArrivesAndEnds) {
  std::mt19937 random(5);
  std::map<uint32_t, uint32_t> sent;  // by identifier: what the driver wrote into the first piece
  std::vector<std::unique_ptr<virtio::Chain>> out;
  uint32_t number = 0;
  uint32_t heard = 0;
  bool device_sleeps = !queue_->enable_notifications();
  ring_->want_interrupt(true);
  for (int round = 0; round < 2000; ++round) {
    for (uint32_t tries = random() % 5; tries > 0; --tries) {
      const uint64_t place = data_ + number % 64 * 4096;
      const Piece pieces[] = {{place, 4, false}, {place + 64, 40, true}, {place + 512, 1, true}};
      const auto id = ring_->add(std::span(pieces).first(2 + random() % 2));
      if (!id) break;
      base::store_little<uint32_t>(ram_->bytes(place, 4), 0, number);
      EXPECT_TRUE(sent.emplace(*id, number++).second);
    }
    const bool told = ring_->publish();
    if (told) device_sleeps = false;
    while (!device_sleeps) {
      auto chain = std::make_unique<virtio::Chain>();
      const auto popped = queue_->pop(*chain);
      ASSERT_TRUE(popped) << popped.error().message();
      if (!*popped) {
        device_sleeps = !queue_->enable_notifications();
        continue;
      }
      EXPECT_EQ(chain->readable_bytes(), 4U);
      EXPECT_GE(chain->writable_bytes(), 40U);
      out.push_back(std::move(chain));
    }
    // Nothing that was published waits for a device that was not told.
    ASSERT_EQ(sent.size(), out.size());
    std::ranges::shuffle(out, random);
    for (uint32_t ends = random() % 6; ends > 0 && !out.empty(); --ends) {
      const auto& first = out.back()->readable()[0];
      const uint32_t which =
          base::load_little<uint32_t>({static_cast<uint8_t*>(first.iov_base), 4});
      queue_->push(*out.back(), which % 40);
      out.pop_back();
    }
    if (!queue_->publish()) {
      EXPECT_FALSE(ring_->any_used());
      continue;
    }
    while (const auto used = ring_->collect()) {
      ASSERT_TRUE(sent.contains(used->id));
      EXPECT_EQ(used->written, sent[used->id] % 40);
      sent.erase(used->id);
      ++heard;
    }
    ring_->want_interrupt(true);
  }
  EXPECT_GT(heard, 2000U);
  EXPECT_EQ(heard + out.size(), number);
}

// A driver that polls gets no interrupts.
TEST_P(DriverRingTest, NobodyInterruptsWhoPolls) {
  ring_->want_interrupt(false);
  queue_->disable_notifications();
  for (int i = 0; i < 100; ++i) {
    const Piece piece = {data_, 8, true};
    ASSERT_TRUE(ring_->add({&piece, 1}));
    const bool notified = ring_->publish();
    virtio::Chain chain;
    ASSERT_TRUE(queue_->pop(chain).value_or(false));
    queue_->push(chain, 8);
    const bool interrupted = queue_->publish();
    // The first time an event index still says what a fresh ring says.
    if (i > 0) EXPECT_FALSE(notified || interrupted);
    ASSERT_TRUE(ring_->collect());
  }
}

INSTANTIATE_TEST_SUITE_P(All, DriverRingTest, testing::ValuesIn(all_options()), ring_name);

}  // namespace
}  // namespace platter::front_end
