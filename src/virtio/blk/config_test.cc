#include "virtio/blk/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"

namespace platter::virtio::blk {
namespace {

using testing::HasSubstr;

constexpr uint64_t kGiB = uint64_t{1} << 30;

template <typename T>
T field(const std::array<uint8_t, kMaxConfigBytes>& space, size_t offset) {
  return base::load_little<T>(space, offset);
}

TEST(BlkConfig, LiesWhereTheSpecificationPutsIt) {
  Properties p;
  p.logical_block_bytes = 4096;
  p.physical_block_bytes = 16384;
  p.min_io_bytes = 8192;
  p.opt_io_bytes = 65536;
  p.discard_granularity = 65536;
  p.queues = 4;
  p.queue_size = 128;
  p.max_discard_sectors = 1000;
  p.max_write_zeroes_sectors = 2000;
  const auto space = config_space(p, kGiB, true);
  EXPECT_EQ(field<uint64_t>(space, 0), kGiB / 512);
  EXPECT_EQ(field<uint32_t>(space, 8), 0U) << "size_max is not offered";
  EXPECT_EQ(field<uint32_t>(space, 12), 126U);
  EXPECT_EQ(field<uint16_t>(space, 16), 2080U);
  EXPECT_EQ(space[18], 16);
  EXPECT_EQ(space[19], 56) << "63 sectors are not whole blocks";
  EXPECT_EQ(field<uint32_t>(space, 20), 4096U);
  EXPECT_EQ(space[24], 2);
  EXPECT_EQ(space[25], 0);
  EXPECT_EQ(field<uint16_t>(space, 26), 2U);
  EXPECT_EQ(field<uint32_t>(space, 28), 16U);
  EXPECT_EQ(space[32], 1);
  EXPECT_EQ(field<uint16_t>(space, 34), 4U);
  EXPECT_EQ(field<uint32_t>(space, 36), 1000U);
  EXPECT_EQ(field<uint32_t>(space, 40), 1U);
  EXPECT_EQ(field<uint32_t>(space, 44), 128U);
  EXPECT_EQ(field<uint32_t>(space, 48), 2000U);
  EXPECT_EQ(field<uint32_t>(space, 52), 1U);
  EXPECT_EQ(space[56], 1);
}

TEST(BlkConfig, ZonesFollowWhatOtherDisksHave) {
  Properties p;
  p.zoned = {.model = block::ZoneModel::kHostAware,
             .zone_size = 1 << 20,
             .max_open = 3,
             .max_active = 5,
             .max_append = 64 << 10,
             .write_granularity = 4096};
  EXPECT_NE(offered_features(p, true) & kZoned, 0U);
  EXPECT_EQ(config_bytes(offered_features(p, true)), 96U);
  const auto space = config_space(p, kGiB, true);
  for (size_t i = 57; i < 72; ++i) EXPECT_EQ(space[i], 0) << i;
  EXPECT_EQ(field<uint32_t>(space, 72), 2048U);
  EXPECT_EQ(field<uint32_t>(space, 76), 3U);
  EXPECT_EQ(field<uint32_t>(space, 80), 5U);
  EXPECT_EQ(field<uint32_t>(space, 84), 128U);
  EXPECT_EQ(field<uint32_t>(space, 88), 4096U);
  EXPECT_EQ(space[92], 2);
  for (size_t i = 93; i < 96; ++i) EXPECT_EQ(space[i], 0) << i;
}

TEST(BlkConfig, SegmentsFollowTheQueueOrNot) {
  Properties p;
  EXPECT_EQ(field<uint32_t>(config_space(p, kGiB, true), 12), 254U);
  p.seg_max_adjust = false;
  EXPECT_EQ(field<uint32_t>(config_space(p, kGiB, true), 12), 126U);
}

TEST(BlkConfig, GranularityIsToldOrNot) {
  Properties p;
  EXPECT_EQ(field<uint32_t>(config_space(p, kGiB, true), 44), 1U);
  p.discard_granularity = 65536;
  EXPECT_EQ(field<uint32_t>(config_space(p, kGiB, true), 44), 128U);
  p.report_discard_granularity = false;
  EXPECT_EQ(field<uint32_t>(config_space(p, kGiB, true), 44), 1U);
}

TEST(BlkConfig, PartOfASectorIsNotPartOfTheDisk) {
  EXPECT_EQ(field<uint64_t>(config_space({}, 1023, true), 0), 1U);
}

TEST(BlkConfig, EndsAfterTheLastFieldThatIsOffered) {
  Properties p;
  EXPECT_EQ(config_bytes(offered_features(p, true)), 57U);
  p.write_zeroes = false;
  EXPECT_EQ(config_bytes(offered_features(p, true)), 48U);
  p.discard = false;
  EXPECT_EQ(config_bytes(offered_features(p, true)), 36U);
}

TEST(BlkConfig, OffersWhatThePropertiesSay) {
  Properties p;
  EXPECT_EQ(offered_features(p, true), kSegMax | kGeometry | kBlockSize | kTopology | kFlush |
                                           kConfigWce | kDiscard | kWriteZeroes);
  EXPECT_NE(offered_features(p, false) & kFlush, 0U) << "the driver may turn the cache on";
  p.config_wce = false;
  EXPECT_EQ(offered_features(p, false) & (kFlush | kConfigWce), 0U);
  EXPECT_EQ(offered_features(p, true) & (kFlush | kConfigWce), kFlush);
  p.read_only = true;
  p.queues = 2;
  p.discard = p.write_zeroes = false;
  EXPECT_EQ(offered_features(p, true),
            kSegMax | kGeometry | kReadOnly | kBlockSize | kFlush | kTopology | kMultiQueue);
}

TEST(BlkConfig, GuessesAGeometry) {
  EXPECT_EQ(guess_geometry(0), (DiskGeometry{2, 16, 63}));
  EXPECT_EQ(guess_geometry(1008 * 100), (DiskGeometry{100, 16, 63}));
  EXPECT_EQ(guess_geometry(UINT64_MAX), (DiskGeometry{16383, 16, 63}));
}

TEST(BlkProperties, AreJudged) {
  const auto complaint = [](auto change) -> std::string {
    Properties p;
    change(p);
    auto checked = check(p);
    return checked ? "" : checked.error().message();
  };
  EXPECT_EQ(complaint([](Properties&) {}), "");
  EXPECT_THAT(complaint([](auto& p) { p.logical_block_bytes = 1000; }), HasSubstr("logical_block"));
  EXPECT_THAT(complaint([](auto& p) { p.logical_block_bytes = 256; }), HasSubstr("logical_block"));
  EXPECT_THAT(complaint([](auto& p) { p.physical_block_bytes = 4 << 20; }), HasSubstr("physical"));
  EXPECT_EQ(complaint([](auto& p) { p.logical_block_bytes = 4096; }),
            "logical_block_size > physical_block_size not supported");
  EXPECT_EQ(complaint([](auto& p) { p.min_io_bytes = 100; }),
            "min_io_size must be a multiple of logical_block_size");
  EXPECT_THAT(complaint([](auto& p) { p.min_io_bytes = 65536 * 512; }), HasSubstr("65535"));
  EXPECT_EQ(complaint([](auto& p) { p.opt_io_bytes = 100; }),
            "opt_io_size must be a multiple of logical_block_size");
  EXPECT_EQ(complaint([](auto& p) { p.discard_granularity = 100; }),
            "discard_granularity must be a multiple of logical_block_size");
  EXPECT_EQ(complaint([](auto& p) { p.geometry = {0, 16, 63}; }),
            "cyls must be between 1 and 65535");
  EXPECT_EQ(complaint([](auto& p) { p.geometry = {100, 256, 63}; }),
            "heads must be between 1 and 255");
  EXPECT_EQ(complaint([](auto& p) { p.geometry = {100, 16, 256}; }),
            "secs must be between 1 and 255");
  EXPECT_EQ(complaint([](auto& p) { p.queues = 0; }), "num-queues property must be larger than 0");
  EXPECT_THAT(complaint([](auto& p) { p.queues = 1025; }), HasSubstr("num-queues"));
  EXPECT_EQ(complaint([](auto& p) { p.queue_size = 2; }),
            "invalid queue-size property (2), must be > 2");
  EXPECT_EQ(complaint([](auto& p) { p.queue_size = 100; }),
            "invalid queue-size property (100), must be a power of 2 (max 1024)");
  EXPECT_EQ(complaint([](auto& p) { p.queue_size = 2048; }),
            "invalid queue-size property (2048), must be a power of 2 (max 1024)");
  EXPECT_EQ(complaint([](auto& p) { p.max_discard_sectors = 0; }),
            "invalid max-discard-sectors property (0), must be between 1 and 4194303");
  EXPECT_EQ(complaint([](auto& p) { p.max_write_zeroes_sectors = 4194304; }),
            "invalid max-write-zeroes-sectors property (4194304), must be between 1 and 4194303");
  EXPECT_EQ(complaint([](auto& p) {
              p.discard = false;
              p.max_discard_sectors = 0;
            }),
            "");
}

}  // namespace
}  // namespace platter::virtio::blk
