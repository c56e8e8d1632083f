#include "virtio/blk/device.h"

#include <gtest/gtest.h>

#include <array>

#include "base/bytes.h"
#include "block/test_disk.h"
#include "virtio/blk/config.h"
#include "virtio/features.h"

namespace platter::virtio::blk {
namespace {

class BlkDeviceTest : public block::DiskTest {
 protected:
  void SetUp() override { open("driver=memory,size=1M"); }
  std::unique_ptr<Device> make(Properties properties = {}) {
    return *Device::make(*backend_, std::move(properties));
  }
  static Properties named(std::string serial) {
    Properties properties;
    properties.serial = std::move(serial);
    return properties;
  }
  static uint8_t wce(const Device& device) {
    std::array<uint8_t, 1> byte;
    device.read_config(kWceOffset, byte);
    return byte[0];
  }
};

TEST_F(BlkDeviceTest, TakesOnlyFeaturesThatItOffers) {
  auto device = make();
  EXPECT_TRUE(device->set_features(kVersion1 | kFlush | kPackedRing));
  auto refused = device->set_features(kVersion1 | kAccessPlatform);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EINVAL);
  EXPECT_EQ(device->features(), kVersion1 | kFlush | kPackedRing);
}

TEST_F(BlkDeviceTest, ConfigurationReadsZeroPastItsEnd) {
  auto device = make();
  std::array<uint8_t, 128> bytes;
  bytes.fill(0xff);
  device->read_config(0, bytes);
  EXPECT_EQ(base::load_little<uint64_t>(bytes, 0), (1U << 20) / kSectorBytes);
  for (size_t i = device->config_bytes(); i < bytes.size(); ++i) EXPECT_EQ(bytes[i], 0) << i;
  device->read_config(SIZE_MAX - 3, bytes);
  EXPECT_EQ(bytes[0], 0);
}

TEST_F(BlkDeviceTest, OnlyTheWriteCacheCanBeWritten) {
  auto device = make();
  const uint8_t off[] = {0};
  const uint8_t wrong[] = {2};
  EXPECT_TRUE(device->write_config(kWceOffset, off));
  EXPECT_EQ(wce(*device), 0);
  EXPECT_FALSE(device->write_config(kWceOffset, wrong));
  EXPECT_FALSE(device->write_config(0, off));
  Properties properties;
  properties.config_wce = false;
  EXPECT_FALSE(make(properties)->write_config(kWceOffset, off));
}

TEST_F(BlkDeviceTest, WithoutConfigWceTheCacheFollowsFlush) {
  auto device = make();
  ASSERT_TRUE(device->set_features(kVersion1));
  device->start();
  EXPECT_EQ(wce(*device), 0);
  device->reset();
  EXPECT_EQ(wce(*device), 1);
  ASSERT_TRUE(device->set_features(kVersion1 | kFlush));
  device->start();
  EXPECT_EQ(wce(*device), 1);
  // Who can choose is not chosen for.
  device->reset();
  ASSERT_TRUE(device->set_features(kVersion1 | kConfigWce));
  device->start();
  EXPECT_EQ(wce(*device), 1);
}

TEST_F(BlkDeviceTest, GoesOnFromAnothersState) {
  auto first = make(named("s"));
  ASSERT_TRUE(first->set_features(kVersion1 | kFlush | kConfigWce));
  ASSERT_TRUE(first->set_status(kAcknowledge | kDriver | kFeaturesOk | kDriverOk));
  const uint8_t off[] = {0};
  ASSERT_TRUE(first->write_config(kWceOffset, off));
  first->break_down();
  DeviceState state = first->state();
  state.queues.resize(1);
  auto second = make(named("s"));
  const auto restored = second->restore(state);
  ASSERT_TRUE(restored) << restored.error().message();
  EXPECT_EQ(second->features(), first->features());
  EXPECT_EQ(second->status(), first->status());
  EXPECT_TRUE(second->is_broken());
  EXPECT_EQ(wce(*second), 0);
}

TEST_F(BlkDeviceTest, AStateOfAnotherDeviceChangesNothing) {
  auto device = make(named("s"));
  const auto refuse = [&](auto change) {
    DeviceState state = make(named("s"))->state();
    state.queues.resize(1);
    state.status = kAcknowledge;
    change(state);
    EXPECT_FALSE(device->restore(state));
    EXPECT_EQ(device->status(), 0);
    EXPECT_EQ(device->features(), 0U);
  };
  refuse([](DeviceState& state) { state.serial = "t"; });
  refuse([](DeviceState& state) { state.config[0] ^= 1; });
  refuse([](DeviceState& state) { state.write_cache = !state.write_cache; });
  refuse([](DeviceState& state) { state.queues.resize(2); });
  refuse([](DeviceState& state) { state.features = kAccessPlatform; });
}

constexpr std::string_view kManaged = "driver=memory,size=1M,zoned=host-managed,zone-size=64k";
constexpr std::string_view kAware = "driver=memory,size=1M,zoned=host-aware,zone-size=64k";

TEST_F(BlkDeviceTest, AHostManagedDiskIsForDriversThatKnowZones) {
  open(kManaged);
  auto device = make();
  EXPECT_EQ(device->offered_features() & (kZoned | kDiscard), kZoned);
  EXPECT_FALSE(device->set_features(kVersion1 | kFlush));
  EXPECT_FALSE(device->set_features(kFlush | kZoned)) << "a legacy driver";
  EXPECT_EQ(device->features(), 0U);
  ASSERT_TRUE(device->set_status(kAcknowledge | kDriver));
  EXPECT_FALSE(device->set_status(kAcknowledge | kDriver | kFeaturesOk));
  EXPECT_EQ(device->status(), kAcknowledge | kDriver);
  EXPECT_TRUE(device->set_features(kVersion1 | kZoned));
  EXPECT_TRUE(device->set_status(kAcknowledge | kDriver | kFeaturesOk));
}

TEST_F(BlkDeviceTest, AHostAwareDiskMayBeUsedWithoutItsZones) {
  open(kAware);
  auto device = make();
  EXPECT_EQ(device->offered_features() & (kZoned | kDiscard), kZoned | kDiscard);
  const auto model = [&] {
    std::array<uint8_t, 1> byte;
    device->read_config(92, byte);
    return byte[0];
  };
  EXPECT_EQ(model(), 2) << "before anything is chosen";
  ASSERT_TRUE(device->set_features(kVersion1));
  EXPECT_EQ(model(), 0);
  ASSERT_TRUE(device->set_features(kVersion1 | kZoned));
  EXPECT_EQ(model(), 2);
  device->reset();
  EXPECT_EQ(model(), 2);
}

TEST_F(BlkDeviceTest, GoesOnFromTheStateOfAnotherZonedOne) {
  open(kManaged);
  const auto state_of = [&](Device& device) {
    DeviceState state = device.state();
    state.queues.resize(1);
    const auto parsed = DeviceState::parse(state.encode());
    EXPECT_TRUE(parsed) << parsed.error().message();
    return *parsed;
  };
  auto first = make();
  EXPECT_TRUE(make()->restore(state_of(*first))) << "its driver has not chosen yet";
  ASSERT_TRUE(first->set_features(kVersion1 | kZoned));
  const DeviceState at_work = state_of(*first);
  auto second = make();
  ASSERT_TRUE(second->restore(at_work));
  EXPECT_EQ(second->features(), kVersion1 | kZoned);
  open("driver=memory,size=1M,zoned=host-managed,zone-size=128k");
  EXPECT_FALSE(make()->restore(at_work)) << "other zones";
}

TEST_F(BlkDeviceTest, StatusOnlyGrowsUntilAReset) {
  auto device = make();
  EXPECT_TRUE(device->set_status(kAcknowledge));
  EXPECT_TRUE(device->set_status(kAcknowledge | kDriver | kFeaturesOk | kDriverOk));
  EXPECT_FALSE(device->set_status(kAcknowledge));
  device->break_down();
  EXPECT_TRUE(device->is_broken());
  EXPECT_TRUE(device->set_status(0));
  EXPECT_EQ(device->status(), 0);
  EXPECT_FALSE(device->is_broken());
}

}  // namespace
}  // namespace platter::virtio::blk
