#include "virtio/blk/config.h"

#include <algorithm>
#include <bit>

#include "base/bytes.h"

namespace platter::virtio::blk {
namespace {

constexpr uint32_t kGuessedHeads = 16;
constexpr uint32_t kGuessedTrackSectors = 63;
constexpr uint64_t kMaxGuessedCylinders = 16383;
constexpr uint32_t kMaxSegmentsUnadjusted = 126;
// A header and a status byte take a descriptor each.
constexpr uint32_t kFrameDescriptors = 2;

enum Field : size_t {
  kCapacity = 0,
  kSegMaxField = 12,
  kCylinders = 16,
  kHeads = 18,
  kSectors = 19,
  kBlkSize = 20,
  kPhysicalBlockExponent = 24,
  kMinIoSize = 26,
  kOptIoSize = 28,
  kNumQueues = 34,
  kMaxDiscardSectors = 36,
  kMaxDiscardSegments = 40,
  kDiscardAlignment = 44,
  kMaxWriteZeroesSectors = 48,
  kMaxWriteZeroesSegments = 52,
  kWriteZeroesMayUnmap = 56,
  kZoneSectors = kZonedOffset,
  kMaxOpenZones = 76,
  kMaxActiveZones = 80,
  kMaxAppendSectors = 84,
  kWriteGranularity = 88,
  kZoneModel = 92,
};
constexpr size_t kPlainBytes = 36;
constexpr size_t kBytesWithDiscard = 48;
constexpr size_t kBytesWithWriteZeroes = 57;

// What a track holds is told in whole logical blocks where the tracks of a disk are none.
uint8_t track_sectors(const DiskGeometry& geometry, const Properties& p, uint64_t disk_bytes) {
  const uint32_t block_sectors = p.logical_block_bytes / kSectorBytes;
  const uint64_t for_each_track = disk_bytes / geometry.heads / geometry.sectors;
  const bool fits = for_each_track % p.logical_block_bytes == 0;
  const uint32_t sectors = geometry.sectors;
  return static_cast<uint8_t>(fits ? sectors : sectors & ~(block_sectors - 1));
}

void store_zoned(std::span<uint8_t> space, const block::ZonedCharacteristics& zoned) {
  const auto sectors = [](uint64_t bytes) { return static_cast<uint32_t>(bytes / kSectorBytes); };
  base::store_little<uint32_t>(space, kZoneSectors, sectors(zoned.zone_size));
  base::store_little<uint32_t>(space, kMaxOpenZones, zoned.max_open);
  base::store_little<uint32_t>(space, kMaxActiveZones, zoned.max_active);
  base::store_little<uint32_t>(space, kMaxAppendSectors, sectors(zoned.max_append));
  base::store_little<uint32_t>(space, kWriteGranularity, zoned.write_granularity);
  space[kZoneModel] = static_cast<uint8_t>(zoned.model);
}

}  // namespace

uint64_t offered_features(const Properties& p, bool write_cache) {
  uint64_t features = kSegMax | kGeometry | kBlockSize | kTopology;
  if (p.read_only) features |= kReadOnly;
  if (write_cache || (p.config_wce && p.enable_wce_if_config_wce)) features |= kFlush;
  if (p.config_wce) features |= kConfigWce;
  if (p.queues > 1) features |= kMultiQueue;
  if (p.discard) features |= kDiscard;
  if (p.write_zeroes) features |= kWriteZeroes;
  if (p.zoned) features |= kZoned;
  return features;
}

size_t config_bytes(uint64_t offered) {
  if ((offered & kZoned) != 0) return kMaxConfigBytes;
  if ((offered & kWriteZeroes) != 0) return kBytesWithWriteZeroes;
  return (offered & kDiscard) != 0 ? kBytesWithDiscard : kPlainBytes;
}

DiskGeometry guess_geometry(uint64_t sectors) {
  const uint64_t cylinders = sectors / (kGuessedHeads * kGuessedTrackSectors);
  return {
      .cylinders = static_cast<uint32_t>(std::clamp<uint64_t>(cylinders, 2, kMaxGuessedCylinders)),
      .heads = kGuessedHeads,
      .sectors = kGuessedTrackSectors};
}

std::array<uint8_t, kMaxConfigBytes> config_space(const Properties& p, uint64_t disk_bytes,
                                                  bool write_cache) {
  std::array<uint8_t, kMaxConfigBytes> space{};
  const std::span<uint8_t> bytes(space);
  const auto blocks = [&](uint32_t amount) { return amount / p.logical_block_bytes; };
  const uint64_t capacity = disk_bytes / kSectorBytes;
  const DiskGeometry geometry =
      p.geometry == DiskGeometry() ? guess_geometry(capacity) : p.geometry;
  const uint32_t segments =
      p.seg_max_adjust ? uint32_t{p.queue_size} - kFrameDescriptors : kMaxSegmentsUnadjusted;
  const uint32_t granularity = p.report_discard_granularity
                                   ? p.discard_granularity.value_or(p.logical_block_bytes)
                                   : p.logical_block_bytes;
  base::store_little<uint64_t>(bytes, kCapacity, capacity);
  base::store_little<uint32_t>(bytes, kSegMaxField, segments);
  base::store_little<uint16_t>(bytes, kCylinders, static_cast<uint16_t>(geometry.cylinders));
  space[kHeads] = static_cast<uint8_t>(geometry.heads);
  space[kSectors] = track_sectors(geometry, p, disk_bytes);
  base::store_little<uint32_t>(bytes, kBlkSize, p.logical_block_bytes);
  space[kPhysicalBlockExponent] =
      static_cast<uint8_t>(std::countr_zero(p.physical_block_bytes / p.logical_block_bytes));
  base::store_little<uint16_t>(bytes, kMinIoSize, static_cast<uint16_t>(blocks(p.min_io_bytes)));
  base::store_little<uint32_t>(bytes, kOptIoSize, blocks(p.opt_io_bytes));
  space[kWceOffset] = write_cache ? 1 : 0;
  base::store_little<uint16_t>(bytes, kNumQueues, p.queues);
  if (p.discard) {
    base::store_little<uint32_t>(bytes, kMaxDiscardSectors, p.max_discard_sectors);
    base::store_little<uint32_t>(bytes, kMaxDiscardSegments, 1);
    base::store_little<uint32_t>(bytes, kDiscardAlignment, granularity / kSectorBytes);
  }
  if (p.write_zeroes) {
    base::store_little<uint32_t>(bytes, kMaxWriteZeroesSectors, p.max_write_zeroes_sectors);
    base::store_little<uint32_t>(bytes, kMaxWriteZeroesSegments, 1);
    space[kWriteZeroesMayUnmap] = 1;
  }
  if (p.zoned) store_zoned(bytes, *p.zoned);
  return space;
}

}  // namespace platter::virtio::blk
