// A back-end is killed with requests in flight: the next one does them, once each. And a front-end
// that gives it rubbish instead of what a back-end left harms nobody but himself.
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <random>

#include "support/scratch_directory.h"
#include "vhost_user/back_end.h"
#include "vhost_user/ring_tests.h"

namespace platter::front_end {
namespace {

constexpr uint32_t kRingSize = 64;
constexpr uint32_t kBytes = 4096;
constexpr uint64_t kRequestSectors = kBytes / kSectorBytes;

// Of the region (the vhost-user protocol, "Inflight I/O tracking").
constexpr size_t kVersionOffset = 8;
constexpr size_t kHeaderBytes = 16;
constexpr size_t kEntryBytes = 16;

DeviceOptions options_for(RingOptions ring, uint32_t queues = 1) {
  ring.size = kRingSize;
  return {.queues = queues,
          .ring = ring,
          .ram_bytes = 16ULL << 20,
          .buffer_bytes = kBytes,
          .protocol_features = protocol_feature::kReplyAck | protocol_feature::kInflight};
}

// One that keeps every request for ever, and one that keeps none.
const std::string kStuckNode =
    "driver=null-co,size=33554432,read-zeroes=on,latency-ns=3600000000000";
const std::string kQuickNode = "driver=null-co,size=33554432,read-zeroes=on";

class BackEndTest : public testing::Test {
 protected:
  void start(const BackEndOptions& options) {
    constexpr int kAttempts = 200;
    back_end_.reset();
    // The kernel ends what one who was killed had begun; until then the image is locked.
    for (int i = 0; i < kAttempts; ++i) {
      auto started = BackEnd::start("platter", options);
      if (started) {
        back_end_.emplace(std::move(*started));
        return;
      }
    }
    FAIL() << "the back-end does not start";
  }
  void start(const std::string& node, unsigned queues = 1) {
    start(BackEndOptions{.image = {}, .node = node, .socket = socket(), .queues = queues});
  }
  std::string socket() const { return scratch_.path("socket"); }
  std::unique_ptr<BlockDevice> connect(const DeviceOptions& options) {
    auto device = BlockDevice::connect(socket(), options);
    if (device) return std::move(*device);
    ADD_FAILURE() << device.error().message();
    return nullptr;
  }
  static std::map<uint32_t, uint64_t> fill(BlockQueue& queue, uint32_t type) {
    std::map<uint32_t, uint64_t> out;
    for (uint64_t sector = 0;; sector += kRequestSectors) {
      const uint32_t slot = queue.next_slot();
      if (!queue.add(type, sector, kBytes)) break;
      out[slot] = sector;
      if (queue.in_flight() == kRingSize / 3) break;
    }
    queue.publish();
    return out;
  }

  support::ScratchDirectory scratch_;
  std::optional<BackEnd> back_end_;
};

// ---- Killed

class InflightTest : public BackEndTest, public testing::WithParamInterface<RingOptions> {};

TEST_P(InflightTest, TheNextBackEndDoesWhatWasInFlight) {
  constexpr unsigned kQueues = 2;
  start(kStuckNode, kQueues);
  const auto device = connect(options_for(GetParam(), kQueues));
  ASSERT_TRUE(device);
  ASSERT_NE(device->protocol_features() & protocol_feature::kInflight, 0U);
  const auto first = fill(device->queue(0), kWrite);
  const auto second = fill(device->queue(1), kRead);
  // Killed twice: those who recover are not safe either.
  for (int kills = 0; kills < 2; ++kills) {
    start(kStuckNode, kQueues);
    const auto again = device->reconnect(socket());
    ASSERT_TRUE(again) << again.error().message();
  }
  start(kQuickNode, kQueues);
  const auto again = device->reconnect(socket());
  ASSERT_TRUE(again) << again.error().message();
  expect_all(device->queue(0), first);
  expect_all(device->queue(1), second);
  // The rings go on, many times around.
  for (int round = 0; round < 10; ++round)
    expect_all(device->queue(1), fill(device->queue(1), kWrite));
  EXPECT_EQ(back_end_->stop(), 0);
}

// At any moment, in the middle of its work.
TEST_P(InflightTest, NoRequestIsLostOrDoneTwiceWhateverWasGoingOn) {
  const std::string image = scratch_.path("disk.qcow2");
  ASSERT_EQ(std::system(fmt::format("qemu-img create -q -f qcow2 {} 32M", image).c_str()), 0);
  const BackEndOptions back_end = {.image = image, .socket = socket()};
  start(back_end);
  const auto device = connect(options_for(GetParam()));
  ASSERT_TRUE(device);
  BlockQueue& queue = device->queue(0);
  std::mt19937 random(4);
  uint64_t sector = 0;
  for (int round = 0; round < 8; ++round) {
    std::map<uint32_t, uint64_t> out;
    const uint64_t kill_after = random() % 400;
    for (uint64_t collected = 0; collected < kill_after || out.empty();) {
      while (queue.in_flight() < kRingSize / 3) {
        const uint32_t slot = queue.next_slot();
        std::ranges::fill(queue.buffer(slot), static_cast<uint8_t>(sector / kRequestSectors));
        if (!queue.add(kWrite, sector % (32 << 11), kBytes)) break;
        out[slot] = sector;
        sector += kRequestSectors;
      }
      queue.publish();
      if (const auto done = queue.collect()) {
        EXPECT_EQ(done->status, kOk);
        ASSERT_EQ(out.erase(done->slot), 1U);
        ++collected;
      }
    }
    back_end_->kill();
    start(back_end);
    const auto again = device->reconnect(socket());
    ASSERT_TRUE(again) << again.error().message();
    expect_all(queue, out);
  }
  EXPECT_EQ(back_end_->stop(), 0);
  ASSERT_EQ(std::system(fmt::format("qemu-img check -q {}", image).c_str()), 0);
}

TEST_P(InflightTest, AnOrderlyStopLeavesNothing) {
  start(kQuickNode);
  const auto device = connect(options_for(GetParam()));
  ASSERT_TRUE(device);
  auto out = fill(device->queue(0), kWrite);
  ASSERT_TRUE(device->stop());
  const size_t entry_bytes = GetParam().packed ? 32 : 16;
  for (size_t i = 0; i < kRingSize; ++i) {
    uint8_t in_flight = 0xff;
    const auto at = static_cast<off_t>((i + 1) * entry_bytes);
    ASSERT_EQ(pread(device->inflight().file.get(), &in_flight, 1, at), 1);
    EXPECT_EQ(in_flight, 0) << i;
  }
  // What it had not taken waits for the next one.
  while (const auto done = device->queue(0).collect()) EXPECT_EQ(out.erase(done->slot), 1U);
  start(kQuickNode);
  ASSERT_TRUE(device->reconnect(socket()));
  expect_all(device->queue(0), out);
}

INSTANTIATE_TEST_SUITE_P(
    All, InflightTest,
    testing::Values(RingOptions{}, RingOptions{.event_index = true},
                    RingOptions{.event_index = true, .indirect = true}, RingOptions{.packed = true},
                    RingOptions{.packed = true, .event_index = true},
                    RingOptions{.packed = true, .event_index = true, .indirect = true}),
    ring_name);

// ---- Rubbish

class HostileInflightTest : public BackEndTest {
 protected:
  void SetUp() override { start(kQuickNode); }

  // An area for one queue, of the front-end's own making, which may be shortened.
  static Inflight area(size_t bytes, std::span<const uint8_t> content = {}) {
    Descriptor file(memfd_create("inflight", MFD_CLOEXEC));
    EXPECT_EQ(ftruncate(file.get(), static_cast<off_t>(bytes)), 0);
    EXPECT_EQ(pwrite(file.get(), content.data(), content.size(), 0),
              static_cast<ssize_t>(content.size()));
    return {
        .file = std::move(file), .bytes = bytes, .offset = 0, .queues = 1, .queue_size = kRingSize};
  }
  // It may refuse it at once, or when the ring starts.
  void expect_refusal(const Inflight& inflight) {
    {
      const auto device = connect(options_for({}));
      ASSERT_TRUE(device);
      ASSERT_TRUE(device->stop());
      const bool taken = device->front_end().set_inflight_fd(inflight).has_value();
      if (taken) EXPECT_FALSE(device->front_end().set_vring_kick(0, device->queue(0).kick_file()));
    }
    expect_a_disk();
  }
  void expect_a_disk() {
    ASSERT_TRUE(back_end_->running());
    const auto device = connect(options_for({}));
    ASSERT_TRUE(device);
    const std::vector<uint8_t> data(kBytes, 0x77);
    EXPECT_EQ(device->write(8, data).value_or(kIoError), kOk);
  }
};

constexpr size_t kAreaBytes = kHeaderBytes + kRingSize * kEntryBytes + 48;

TEST_F(HostileInflightTest, NumbersThatCannotBe) {
  const auto refuse = [&](auto change) {
    Inflight inflight = area(kAreaBytes);
    change(inflight);
    expect_refusal(inflight);
  };
  refuse([](Inflight& each) { each.queues = 0; });
  refuse([](Inflight& each) { each.queues = UINT16_MAX; });
  refuse([](Inflight& each) { each.queue_size = 0; });
  refuse([](Inflight& each) { each.queue_size = UINT16_MAX; });
  refuse([](Inflight& each) { each.queue_size = kRingSize - 1; });
  refuse([](Inflight& each) { each.queue_size = kRingSize + 16; });
  refuse([](Inflight& each) { each.bytes = 0; });
  refuse([](Inflight& each) { each.bytes = UINT64_MAX; });
  refuse([](Inflight& each) { each.offset = UINT64_MAX - 7; });
  refuse([](Inflight& each) { each.offset = 64; });
  refuse([](Inflight& each) {
    each.offset = 4;
    each.bytes -= 4;
  });
}

TEST_F(HostileInflightTest, WhatIsNoFile) {
  Inflight inflight = area(kAreaBytes);
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const Descriptor other(ends[1]);
  inflight.file = Descriptor(ends[0]);
  expect_refusal(inflight);
  inflight.file = Descriptor(open("/dev/zero", O_RDWR | O_CLOEXEC));
  expect_refusal(inflight);
}

TEST_F(HostileInflightTest, ContentThatNoBackEndLeft) {
  std::vector<uint8_t> content(kAreaBytes, 0xff);
  expect_refusal(area(kAreaBytes, content));
  std::ranges::fill(content, uint8_t{1});
  expect_refusal(area(kAreaBytes, content));
  // In flight, of a ring that has seen nothing.
  std::ranges::fill(content, uint8_t{0});
  content[kVersionOffset] = 1;
  content[kVersionOffset + 2] = kRingSize;
  content[kHeaderBytes] = 1;
  expect_refusal(area(kAreaBytes, content));
}

TEST_F(HostileInflightTest, AFileThatIsShortened) {
  {
    const auto device = connect(options_for({}));
    ASSERT_TRUE(device);
    ASSERT_TRUE(device->stop());
    const Inflight inflight = area(kAreaBytes);
    ASSERT_TRUE(device->front_end().set_inflight_fd(inflight));
    ASSERT_TRUE(device->front_end().set_vring_kick(0, device->queue(0).kick_file()));
    ASSERT_TRUE(device->front_end().set_vring_call(0, device->queue(0).call_file()));
    expect_all(device->queue(0), fill(device->queue(0), kWrite));
    ASSERT_EQ(ftruncate(inflight.file.get(), 0), 0);
    for (int round = 0; round < 10; ++round)
      expect_all(device->queue(0), fill(device->queue(0), kWrite));
    ASSERT_TRUE(device->stop());
    EXPECT_FALSE(device->front_end().set_vring_kick(0, device->queue(0).kick_file()));
  }
  expect_a_disk();
}

TEST_F(HostileInflightTest, AreasWithoutNumber) {
  {
    auto front_end = FrontEnd::connect(socket());
    ASSERT_TRUE(front_end);
    for (int i = 0; i < 2000; ++i) {
      const auto inflight = front_end->get_inflight_fd(1, kRingSize);
      ASSERT_TRUE(inflight) << inflight.error().message();
      ASSERT_TRUE(front_end->set_inflight_fd(*inflight));
    }
  }
  expect_a_disk();
}

}  // namespace
}  // namespace platter::front_end
