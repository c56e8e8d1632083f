// Properties of a virtio-blk device as its user sets them, and the limits they are held to. The
// names and defaults are those of QEMU's device of the same name.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "block/zoned.h"
#include "platter/error.h"

namespace platter::virtio::blk {

enum class OnOffAuto { kAuto, kOff, kOn };

// What a device does with a request that its disk fails (virtio/blk/error_policy.h). kAuto: of a
// read kReport, of everything else kEnospc, which is kStop where there is no space left and kReport
// otherwise.
enum class OnError { kAuto, kReport, kIgnore, kStop, kEnospc };
// By its name: "auto", "report", "ignore", "stop", "enospc"; nothing: it is none of them.
std::optional<OnError> parse_on_error(std::string_view name);

// Counted as old firmware counts; all zero: chosen by the size.
struct DiskGeometry {
  uint32_t cylinders = 0;
  uint32_t heads = 0;
  uint32_t sectors = 0;
  bool operator==(const DiskGeometry&) const = default;
};

inline constexpr uint32_t kSectorBytes = 512;
inline constexpr uint32_t kMaxRequestSectors = INT32_MAX >> 9;
inline constexpr uint32_t kMaxBlockBytes = 2 << 20;
inline constexpr uint16_t kMaxQueues = 1024;
inline constexpr uint16_t kMaxQueueSize = 1024;
inline constexpr size_t kMaxSerialBytes = 20;

struct Properties {
  uint32_t logical_block_bytes = kSectorBytes;
  uint32_t physical_block_bytes = kSectorBytes;
  uint32_t min_io_bytes = 0;
  uint32_t opt_io_bytes = 0;
  std::optional<uint32_t> discard_granularity;  // bytes; nothing: the logical block's
  DiskGeometry geometry;
  std::string serial;
  OnOffAuto write_cache = OnOffAuto::kAuto;
  OnError read_error = OnError::kAuto;   // not kEnospc
  OnError write_error = OnError::kAuto;  // and of a flush, a discard, zeroes
  uint16_t queues = 1;
  uint16_t queue_size = 256;
  uint32_t max_discard_sectors = kMaxRequestSectors;
  uint32_t max_write_zeroes_sectors = kMaxRequestSectors;
  bool read_only = false;
  bool config_wce = true;
  bool request_merging = true;
  bool seg_max_adjust = true;
  bool discard = true;
  bool write_zeroes = true;
  bool report_discard_granularity = true;
  // Of the disk; Device::make() sees to it.
  std::optional<block::ZonedCharacteristics> zoned;
  // With config_wce, FLUSH is offered whatever the write cache's mode.
  bool enable_wce_if_config_wce = true;
  // Of the features that every device has (virtio/features.h): those that are not offered.
  uint64_t withheld_features = 0;
};

// EINVAL: the first property that cannot be, by its name.
Result<void> check(const Properties& properties);

}  // namespace platter::virtio::blk
