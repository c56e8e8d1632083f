// A zoned disk over a connection: what a driver that knows zones does with them, and that one which
// does not know them gets no host-managed disk.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/bytes.h"
#include "support/scratch_directory.h"
#include "vhost_user/back_end.h"
#include "vhost_user/ring_tests.h"

namespace platter::front_end {
namespace {

constexpr uint64_t kZones = 16;
constexpr uint64_t kZoneSectors = 512;      // 256 KiB
constexpr uint64_t kCapacitySectors = 448;  // of them
constexpr uint32_t kBytes = 4096;
constexpr uint64_t kRequestSectors = kBytes / kSectorBytes;
constexpr uint32_t kDescriptorBytes = 64;

struct Zone {
  uint64_t capacity, start, pointer;
  uint8_t type, state;
};

class ZonedTest : public testing::TestWithParam<RingOptions> {
 protected:
  void start(const std::string& model) {
    back_end_.reset();
    auto started = BackEnd::start(
        "platter",
        {.image = {},
         .node =
             fmt::format("driver=memory,size=4M,zoned={},zone-size=256k", model) +
             (model == "host-managed"
                  ? ",zone-capacity=224k,max-open-zones=3,max-active-zones=6,conventional-zones=1"
                  : ""),
         .socket = socket(),
         .queues = 2});
    ASSERT_TRUE(started) << started.error().message();
    back_end_.emplace(std::move(*started));
  }
  void TearDown() override {
    if (back_end_) EXPECT_EQ(back_end_->stop(), 0);
  }
  std::string socket() const { return scratch_.path("socket"); }
  DeviceOptions options() const {
    return {.queues = 2,
            .ring = GetParam(),
            .ram_bytes = 16ULL << 20,
            .buffer_bytes = kBytes,
            .features = kFeatureZoned,
            .protocol_features = protocol_feature::kReplyAck | protocol_feature::kStatus};
  }
  std::unique_ptr<BlockDevice> connect() {
    auto device = BlockDevice::connect(socket(), options());
    if (device) return std::move(*device);
    ADD_FAILURE() << device.error().message();
    return nullptr;
  }
  static std::vector<Zone> report(BlockDevice& device, uint64_t sector = 0) {
    const std::span<uint8_t> bytes = device.queue(0).buffer(device.queue(0).next_slot());
    EXPECT_EQ(device.run(kZoneReport, sector, kBytes).value_or(kIoError), kOk);
    std::vector<Zone> zones(base::load_little<uint64_t>(bytes, 0));
    for (size_t i = 0; i < zones.size(); ++i) {
      const auto one = bytes.subspan((i + 1) * kDescriptorBytes, kDescriptorBytes);
      zones[i] = {base::load_little<uint64_t>(one, 0), base::load_little<uint64_t>(one, 8),
                  base::load_little<uint64_t>(one, 16), one[24], one[25]};
    }
    return zones;
  }
  static std::optional<Done> next(BlockQueue& queue) {
    while (true) {
      if (const auto done = queue.collect()) return done;
      if (!queue.wait(kLimit)) return std::nullopt;
    }
  }

  support::ScratchDirectory scratch_;
  std::optional<BackEnd> back_end_;
};

TEST_P(ZonedTest, TheDriverFindsTheZones) {
  start("host-managed");
  const auto device = connect();
  ASSERT_TRUE(device);
  EXPECT_NE(device->features() & kFeatureZoned, 0U);
  EXPECT_EQ(device->features() & kFeatureDiscard, 0U);
  const auto config = device->front_end().get_config(72, 24);
  ASSERT_TRUE(config) << config.error().message();
  const std::span<const uint8_t> bytes(*config);
  EXPECT_EQ(base::load_little<uint32_t>(bytes, 0), kZoneSectors);
  EXPECT_EQ(base::load_little<uint32_t>(bytes, 4), 3U);
  EXPECT_EQ(base::load_little<uint32_t>(bytes, 8), 6U);
  EXPECT_EQ(base::load_little<uint32_t>(bytes, 12), kCapacitySectors) << "1M, or all of a zone";
  EXPECT_EQ(base::load_little<uint32_t>(bytes, 16), kSectorBytes);
  EXPECT_EQ(bytes[20], 1);
  const auto zones = report(*device);
  ASSERT_EQ(zones.size(), kZones);
  EXPECT_EQ(zones[0].type, 1);
  EXPECT_EQ(zones[0].state, 0);
  for (uint64_t i = 1; i < kZones; ++i) {
    EXPECT_EQ(zones[i].capacity, kCapacitySectors);
    EXPECT_EQ(zones[i].start, i * kZoneSectors);
    EXPECT_EQ(zones[i].pointer, i * kZoneSectors);
    EXPECT_EQ(zones[i].type, 2);
    EXPECT_EQ(zones[i].state, 1);
  }
}

TEST_P(ZonedTest, AHostManagedDiskIsRefusedToWhoKnowsNoZones) {
  start("host-managed");
  DeviceOptions blind = options();
  blind.features = 0;
  EXPECT_FALSE(BlockDevice::connect(socket(), blind));
  {
    // One that does not ask for an answer is dropped.
    auto quiet = FrontEnd::connect(socket());
    ASSERT_TRUE(quiet) << quiet.error().message();
    EXPECT_TRUE(quiet->set_features(virtio::kVersion1));
    EXPECT_FALSE(quiet->get_features());
  }
  const auto device = connect();
  ASSERT_TRUE(device);
  EXPECT_EQ(device->write(kZoneSectors, std::vector<uint8_t>(kBytes)).value_or(kIoError), kOk);
}

TEST_P(ZonedTest, AHostAwareDiskIsAPlainOneToWhoKnowsNoZones) {
  start("host-aware");
  DeviceOptions blind = options();
  blind.features = 0;
  const auto device = BlockDevice::connect(socket(), blind);
  ASSERT_TRUE(device) << device.error().message();
  const auto model = (*device)->front_end().get_config(92, 1);
  ASSERT_TRUE(model) << model.error().message();
  EXPECT_EQ(model->at(0), 0);
  EXPECT_EQ((*device)->run(kZoneReport, 0, kBytes).value_or(kOk), kUnsupported);
  EXPECT_EQ((*device)->write(4000, std::vector<uint8_t>(kBytes, 3)).value_or(kIoError), kOk);
}

// They come back in any order; where each has gone it says itself.
TEST_P(ZonedTest, AppendsOfTwoQueuesShareAZone) {
  start("host-managed");
  const auto device = connect();
  ASSERT_TRUE(device);
  constexpr uint64_t kCount = kCapacitySectors / kRequestSectors;
  std::map<uint64_t, uint8_t> content;
  std::map<std::pair<int, uint32_t>, uint8_t> out;
  uint64_t sent = 0;
  while (sent < kCount) {
    for (int i = 0; i < 2; ++i) {
      BlockQueue& queue = device->queue(static_cast<uint32_t>(i));
      while (sent < kCount && queue.in_flight() < 8) {
        const uint32_t slot = queue.next_slot();
        std::ranges::fill(queue.buffer(slot), static_cast<uint8_t>(sent + 1));
        ASSERT_TRUE(queue.add(kZoneAppend, 2 * kZoneSectors, kBytes));
        out[{i, slot}] = static_cast<uint8_t>(++sent);
      }
      queue.publish();
    }
    for (int i = 0; i < 2; ++i) {
      BlockQueue& queue = device->queue(static_cast<uint32_t>(i));
      while (queue.in_flight() != 0) {
        const auto done = next(queue);
        ASSERT_TRUE(done);
        ASSERT_EQ(done->status, kOk);
        EXPECT_EQ(done->written, 9U);
        content[queue.append_sector(done->slot)] = out[{i, done->slot}];
      }
    }
  }
  std::vector<uint8_t> found(kBytes);
  for (uint64_t i = 0; i < kCount; ++i) {
    const uint64_t sector = 2 * kZoneSectors + i * kRequestSectors;
    ASSERT_TRUE(content.contains(sector)) << sector;
    ASSERT_EQ(device->read(sector, found).value_or(kIoError), kOk);
    EXPECT_EQ(found, std::vector<uint8_t>(kBytes, content[sector]));
  }
  EXPECT_EQ(report(*device)[2].state, 14);
  EXPECT_EQ(device->run(kZoneAppend, 2 * kZoneSectors, kBytes).value_or(kOk), kZoneInvalidCommand);
}

// A batch of writes, in their order, and one among them that is out of it: it alone fails.
TEST_P(ZonedTest, WritesOfABatchFollowThePointer) {
  start("host-managed");
  const auto device = connect();
  ASSERT_TRUE(device);
  BlockQueue& queue = device->queue(0);
  std::set<uint32_t> wrong;
  for (uint64_t i = 0; i < 8; ++i) {
    std::ranges::fill(queue.buffer(queue.next_slot()), static_cast<uint8_t>(i + 1));
    ASSERT_TRUE(queue.add(kWrite, kZoneSectors + i * kRequestSectors, kBytes));
    if (i != 3) continue;
    wrong.insert(queue.next_slot());
    ASSERT_TRUE(queue.add(kWrite, kZoneSectors + 400, kBytes));
  }
  queue.publish();
  while (queue.in_flight() != 0) {
    const auto done = next(queue);
    ASSERT_TRUE(done);
    EXPECT_EQ(done->status, wrong.contains(done->slot) ? kZoneUnalignedPointer : kOk);
  }
  std::vector<uint8_t> found(kBytes);
  for (uint64_t i = 0; i < 8; ++i) {
    ASSERT_EQ(device->read(kZoneSectors + i * kRequestSectors, found).value_or(kIoError), kOk);
    EXPECT_EQ(found, std::vector<uint8_t>(kBytes, static_cast<uint8_t>(i + 1)));
  }
}

// Neighbours are not made one: what the zone still holds is written.
TEST_P(ZonedTest, ABatchThatDoesNotFitFailsFromThereOn) {
  start("host-managed");
  const auto device = connect();
  ASSERT_TRUE(device);
  BlockQueue& queue = device->queue(0);
  const std::vector<uint8_t> data(kBytes, 1);
  for (uint64_t sector = 0; sector < kCapacitySectors - kRequestSectors; sector += kRequestSectors)
    ASSERT_EQ(device->write(kZoneSectors + sector, data).value_or(kIoError), kOk);
  const uint64_t last = kZoneSectors + kCapacitySectors - kRequestSectors;
  std::map<uint32_t, uint8_t> expected;
  for (uint64_t i = 0; i < 3; ++i) {
    expected[queue.next_slot()] = i == 0 ? kOk : kZoneInvalidCommand;
    ASSERT_TRUE(queue.add(kWrite, last + i * kRequestSectors, kBytes));
  }
  queue.publish();
  while (queue.in_flight() != 0) {
    const auto done = next(queue);
    ASSERT_TRUE(done);
    EXPECT_EQ(done->status, expected[done->slot]);
  }
  EXPECT_EQ(report(*device)[1].state, 14);
}

TEST_P(ZonedTest, ZonesStayWhatTheyAreWhenTheDriverGoes) {
  start("host-managed");
  const auto open = [](BlockDevice& device, uint64_t zone) {
    return device.run(kZoneOpen, zone * kZoneSectors, 0).value_or(kIoError);
  };
  {
    const auto device = connect();
    ASSERT_TRUE(device);
    for (uint64_t zone = 1; zone <= 3; ++zone) EXPECT_EQ(open(*device, zone), kOk);
    EXPECT_EQ(open(*device, 4), kZoneOpenResource);
    EXPECT_EQ(device->write(kZoneSectors, std::vector<uint8_t>(kBytes, 1)).value_or(kIoError), kOk);
    EXPECT_EQ(device->run(kZoneClose, kZoneSectors, 0).value_or(kIoError), kOk);
    EXPECT_EQ(device->run(kZoneFinish, 2 * kZoneSectors, 0).value_or(kIoError), kOk);
  }
  const auto device = connect();
  ASSERT_TRUE(device);
  auto zones = report(*device);
  ASSERT_EQ(zones.size(), kZones);
  EXPECT_EQ(zones[1].state, 4);
  EXPECT_EQ(zones[1].pointer, kZoneSectors + kRequestSectors);
  EXPECT_EQ(zones[2].state, 14);
  EXPECT_EQ(zones[3].state, 3);
  EXPECT_EQ(device->run(kZoneResetAll, 0, 0).value_or(kIoError), kOk);
  zones = report(*device);
  for (uint64_t i = 1; i < kZones; ++i) EXPECT_EQ(zones[i].state, 1) << i;
  std::vector<uint8_t> found(kBytes, 9);
  EXPECT_EQ(device->read(kZoneSectors, found).value_or(kIoError), kOk);
  EXPECT_EQ(found, std::vector<uint8_t>(kBytes));
}

INSTANTIATE_TEST_SUITE_P(All, ZonedTest,
                         testing::Values(RingOptions{.size = 64},
                                         RingOptions{.size = 64, .packed = true},
                                         RingOptions{.size = 64, .packed = true, .indirect = true}),
                         ring_name);

}  // namespace
}  // namespace platter::front_end
