#include "virtio/blk/device_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <string_view>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/try.h"
#include "virtio/blk/device.h"

namespace platter::virtio::blk {
namespace {

using base::load_little;
using base::store_little;

constexpr std::string_view kMagic = "PltrVBlk";
constexpr size_t kVersionOffset = 8;
constexpr size_t kQueuesOffset = 12;
constexpr size_t kFeaturesOffset = 16;
constexpr size_t kStatusOffset = 24;
constexpr size_t kWriteCacheOffset = 25;
constexpr size_t kConfigOffset = 28;
constexpr size_t kSerialOffset = kConfigOffset + DeviceState::kShortConfigBytes;
constexpr size_t kSerialEnd = kSerialOffset + kMaxSerialBytes;
static_assert(kSerialEnd + 4 == DeviceState::kHeaderBytes);
constexpr uint8_t kKnownStatus =
    kAcknowledge | kDriver | kDriverOk | kFeaturesOk | kNeedsReset | kFailed;

Error wrong(std::string_view what) {
  return {EINVAL, fmt::format("virtio-blk: This is no state of a device: {}", what)};
}

Result<DeviceState::Queue> parse_queue(std::span<const uint8_t> bytes) {
  const auto size = load_little<uint16_t>(bytes, 0);
  const auto has_position = load_little<uint16_t>(bytes, 2);
  const QueueState position = {.available = load_little<uint16_t>(bytes, 4),
                               .used = load_little<uint16_t>(bytes, 6)};
  if (size > QueueOptions::kMaxSize) return std::unexpected(wrong("a queue is too large"));
  if (has_position > 1)
    return std::unexpected(wrong("a queue's position is neither there nor not"));
  if (has_position == 1) return DeviceState::Queue{.size = size, .position = position};
  if (position != QueueState())
    return std::unexpected(wrong("a queue has a position and has none"));
  return DeviceState::Queue{.size = size};
}

Result<std::string> parse_serial(std::span<const uint8_t> bytes) {
  const auto end = std::ranges::find(bytes, uint8_t{0});
  if (!base::is_zero({end, bytes.end()}))
    return std::unexpected(wrong("the serial number goes on after its end"));
  return std::string(bytes.begin(), end);
}

}  // namespace

std::vector<uint8_t> DeviceState::encode() const {
  PLATTER_ASSERT(serial.size() <= kMaxSerialBytes && queues.size() <= kMaxQueues);
  const std::span<const uint8_t> rest = std::span(config).subspan(kShortConfigBytes);
  const bool is_long = !base::is_zero(rest);
  const size_t header = is_long ? kLongHeaderBytes : kHeaderBytes;
  std::vector<uint8_t> bytes(header + queues.size() * kQueueBytes);
  std::ranges::copy(kMagic, bytes.begin());
  store_little<uint32_t>(bytes, kVersionOffset, is_long ? kLongVersion : kVersion);
  store_little<uint32_t>(bytes, kQueuesOffset, static_cast<uint32_t>(queues.size()));
  store_little<uint64_t>(bytes, kFeaturesOffset, features);
  bytes[kStatusOffset] = status;
  bytes[kWriteCacheOffset] = write_cache ? 1 : 0;
  std::ranges::copy(std::span(config).first(kShortConfigBytes), bytes.begin() + kConfigOffset);
  if (is_long) std::ranges::copy(rest, bytes.begin() + kHeaderBytes);
  std::ranges::copy(serial, bytes.begin() + kSerialOffset);
  for (size_t i = 0; i < queues.size(); ++i) {
    const size_t at = header + i * kQueueBytes;
    store_little<uint16_t>(bytes, at, queues[i].size);
    if (!queues[i].position) continue;
    store_little<uint16_t>(bytes, at + 2, 1);
    store_little<uint16_t>(bytes, at + 4, queues[i].position->available);
    store_little<uint16_t>(bytes, at + 6, queues[i].position->used);
  }
  return bytes;
}

Result<DeviceState> DeviceState::parse(std::span<const uint8_t> bytes) {
  if (bytes.size() < kQueuesOffset || !std::ranges::equal(bytes.first(kMagic.size()), kMagic))
    return std::unexpected(wrong("it begins otherwise"));
  const auto version = load_little<uint32_t>(bytes, kVersionOffset);
  if (version != kVersion && version != kLongVersion) {
    return fail(EINVAL, fmt::format("virtio-blk: The state of a device has version {}; only {} and "
                                    "{} are known",
                                    version, kVersion, kLongVersion));
  }
  const size_t header = version == kLongVersion ? kLongHeaderBytes : kHeaderBytes;
  if (bytes.size() < header) return std::unexpected(wrong("it is cut short"));
  const auto count = load_little<uint32_t>(bytes, kQueuesOffset);
  if (count > kMaxQueues || bytes.size() != header + count * kQueueBytes)
    return std::unexpected(wrong(fmt::format("{} bytes for {} queues", bytes.size(), count)));
  if (!base::is_zero(bytes.subspan(kWriteCacheOffset + 1, kConfigOffset - kWriteCacheOffset - 1)) ||
      !base::is_zero(bytes.subspan(kSerialEnd, kHeaderBytes - kSerialEnd)))
    return std::unexpected(wrong("there is something where nothing is"));
  DeviceState state;
  state.features = load_little<uint64_t>(bytes, kFeaturesOffset);
  state.status = bytes[kStatusOffset];
  if ((state.status & ~kKnownStatus) != 0)
    return std::unexpected(wrong(fmt::format("status {:#x}", state.status)));
  if (bytes[kWriteCacheOffset] > 1)
    return std::unexpected(wrong("the write cache is neither on nor off"));
  state.write_cache = bytes[kWriteCacheOffset] == 1;
  std::ranges::copy(bytes.subspan(kConfigOffset, kShortConfigBytes), state.config.begin());
  if (version == kLongVersion) {
    const auto rest = bytes.subspan(kHeaderBytes, kLongHeaderBytes - kHeaderBytes);
    if (base::is_zero(rest)) return std::unexpected(wrong("it is longer than what it says"));
    std::ranges::copy(rest, state.config.begin() + kShortConfigBytes);
  }
  PLATTER_ASSIGN(state.serial, parse_serial(bytes.subspan(kSerialOffset, kMaxSerialBytes)));
  for (size_t i = 0; i < count; ++i) {
    PLATTER_ASSIGN(const Queue queue,
                   parse_queue(bytes.subspan(header + i * kQueueBytes, kQueueBytes)));
    state.queues.push_back(queue);
  }
  return state;
}

}  // namespace platter::virtio::blk
