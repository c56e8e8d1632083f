#include "virtio/blk/properties.h"

#include <fmt/format.h>

#include <cerrno>
#include <utility>

#include "base/math.h"
#include "base/try.h"

namespace platter::virtio::blk {
namespace {

constexpr uint32_t kMaxCylinders = 65535;
constexpr uint32_t kMaxHeads = 255;
constexpr uint32_t kMaxTrackSectors = 255;
constexpr uint32_t kMaxMinIoBlocks = UINT16_MAX;

Result<void> check_block(const char* name, uint32_t bytes) {
  if (bytes >= kSectorBytes && bytes <= kMaxBlockBytes && base::is_power_of_two(bytes)) return {};
  return fail(EINVAL, fmt::format("{} is {}; it must be a power of 2 between {} and {}", name,
                                  bytes, kSectorBytes, kMaxBlockBytes));
}

Result<void> check_multiple(const char* name, uint32_t bytes, uint32_t logical_block_bytes) {
  if (bytes % logical_block_bytes == 0) return {};
  return fail(EINVAL, fmt::format("{} must be a multiple of logical_block_size", name));
}

Result<void> check_blocks(const Properties& p) {
  PLATTER_TRY(check_block("logical_block_size", p.logical_block_bytes));
  PLATTER_TRY(check_block("physical_block_size", p.physical_block_bytes));
  if (p.logical_block_bytes > p.physical_block_bytes)
    return fail(EINVAL, "logical_block_size > physical_block_size not supported");
  PLATTER_TRY(check_multiple("min_io_size", p.min_io_bytes, p.logical_block_bytes));
  if (p.min_io_bytes / p.logical_block_bytes > kMaxMinIoBlocks) {
    return fail(EINVAL,
                fmt::format("min_io_size must not exceed {} logical blocks", kMaxMinIoBlocks));
  }
  PLATTER_TRY(check_multiple("opt_io_size", p.opt_io_bytes, p.logical_block_bytes));
  return check_multiple("discard_granularity", p.discard_granularity.value_or(0),
                        p.logical_block_bytes);
}

Result<void> check_geometry(const DiskGeometry& geometry) {
  if (geometry == DiskGeometry()) return {};
  const auto within = [](const char* name, uint32_t value, uint32_t most) -> Result<void> {
    if (value >= 1 && value <= most) return {};
    return fail(EINVAL, fmt::format("{} must be between 1 and {}", name, most));
  };
  PLATTER_TRY(within("cyls", geometry.cylinders, kMaxCylinders));
  PLATTER_TRY(within("heads", geometry.heads, kMaxHeads));
  return within("secs", geometry.sectors, kMaxTrackSectors);
}

Result<void> check_queues(const Properties& p) {
  if (p.queues == 0) return fail(EINVAL, "num-queues property must be larger than 0");
  if (p.queues > kMaxQueues) {
    return fail(EINVAL, fmt::format("num-queues property is {}; it must not exceed {}", p.queues,
                                    kMaxQueues));
  }
  if (p.queue_size <= 2) {
    return fail(EINVAL, fmt::format("invalid queue-size property ({}), must be > 2", p.queue_size));
  }
  if (!base::is_power_of_two(p.queue_size) || p.queue_size > kMaxQueueSize) {
    return fail(EINVAL, fmt::format("invalid queue-size property ({}), must be a power of 2 (max "
                                    "{})",
                                    p.queue_size, kMaxQueueSize));
  }
  return {};
}

Result<void> check_most(const char* name, bool offered, uint32_t sectors) {
  if (!offered || (sectors >= 1 && sectors <= kMaxRequestSectors)) return {};
  return fail(EINVAL, fmt::format("invalid {} property ({}), must be between 1 and {}", name,
                                  sectors, kMaxRequestSectors));
}

}  // namespace

std::optional<OnError> parse_on_error(std::string_view name) {
  constexpr std::pair<std::string_view, OnError> kNames[] = {{"auto", OnError::kAuto},
                                                             {"report", OnError::kReport},
                                                             {"ignore", OnError::kIgnore},
                                                             {"stop", OnError::kStop},
                                                             {"enospc", OnError::kEnospc}};
  for (const auto& [each, policy] : kNames) {
    if (each == name) return policy;
  }
  return std::nullopt;
}

Result<void> check(const Properties& properties) {
  PLATTER_TRY(check_blocks(properties));
  PLATTER_TRY(check_geometry(properties.geometry));
  PLATTER_TRY(check_queues(properties));
  if (properties.read_error == OnError::kEnospc) return fail(EINVAL, "rerror cannot be enospc");
  PLATTER_TRY(
      check_most("max-discard-sectors", properties.discard, properties.max_discard_sectors));
  return check_most("max-write-zeroes-sectors", properties.write_zeroes,
                    properties.max_write_zeroes_sectors);
}

}  // namespace platter::virtio::blk
