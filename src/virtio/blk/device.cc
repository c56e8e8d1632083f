#include "virtio/blk/device.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "base/try.h"
#include "virtio/blk/config.h"
#include "virtio/features.h"

namespace platter::virtio::blk {
namespace {

constexpr uint64_t kCommonFeatures = kNotifyOnEmpty | kAnyLayout | kIndirectDescriptors |
                                     kEventIndex | kVersion1 | kPackedRing | kInOrder;

}  // namespace

Device::Device(block::Backend& backend, Properties properties)
    : backend_(backend),
      properties_(std::move(properties)),
      initial_write_cache_(properties_.write_cache != OnOffAuto::kOff),
      offered_(blk::offered_features(properties_, initial_write_cache_) |
               (kCommonFeatures & ~properties_.withheld_features)),
      executor_(backend_, properties_),
      errors_(properties_.read_error, properties_.write_error),
      write_cache_(initial_write_cache_) {
  backend_.set_write_cache(initial_write_cache_);
}

Result<std::unique_ptr<Device>> Device::make(block::Backend& backend, Properties properties) {
  PLATTER_TRY(check(properties));
  return std::unique_ptr<Device>(new Device(backend, std::move(properties)));
}

Result<void> Device::set_features(uint64_t features) {
  if ((features & ~offered_) != 0) {
    return fail(EINVAL, fmt::format("virtio-blk: The driver takes features {:#x}, which are not "
                                    "offered",
                                    features & ~offered_));
  }
  features_ = features;
  return {};
}

size_t Device::config_bytes() const { return blk::config_bytes(offered_); }

// A request of the space may be longer than it is: what comes after its last field reads zero.
void Device::read_config(size_t offset, std::span<uint8_t> bytes) const {
  const auto space = config_space(properties_, backend_.size(), write_cache());
  const size_t end = config_bytes();
  for (size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = offset < end && i < end - offset ? space[offset + i] : 0;
}

Result<void> Device::write_config(size_t offset, std::span<const uint8_t> bytes) {
  const bool may = properties_.config_wce && !properties_.read_only;
  if (!may || offset != kWceOffset || bytes.size() != 1 || bytes[0] > 1) {
    return fail(EINVAL, fmt::format("virtio-blk: {} bytes at {} of the configuration cannot be "
                                    "written",
                                    bytes.size(), offset));
  }
  set_write_cache(bytes[0] != 0);
  return {};
}

// The capacity is all that changes.
uint32_t Device::config_generation() const {
  return static_cast<uint32_t>(backend_.size() / kSectorBytes);
}

void Device::set_write_cache(bool on) {
  write_cache_.store(on, std::memory_order_relaxed);
  backend_.set_write_cache(on);
}

Result<void> Device::set_status(uint8_t status) {
  if (status == 0) {
    reset();
    return {};
  }
  const auto before = static_cast<uint8_t>(this->status() & ~kNeedsReset);
  if ((before & ~status) != 0)
    return fail(EINVAL, "virtio-blk: The driver takes bits of the status back");
  const bool starts = (status & kDriverOk) != 0 && (before & kDriverOk) == 0;
  if (starts) start();
  status_.fetch_or(status & ~kNeedsReset, std::memory_order_acq_rel);
  return {};
}

void Device::start() {
  if ((features_ & kConfigWce) == 0) set_write_cache((features_ & kFlush) != 0);
}

void Device::reset() {
  features_ = 0;
  set_write_cache(initial_write_cache_);
  errors_.forget_stop();
  status_.store(0, std::memory_order_release);
}

DeviceState Device::state() const {
  return {.features = features_,
          .status = status(),
          .write_cache = write_cache(),
          .config = config_space(properties_, backend_.size(), write_cache()),
          .serial = properties_.serial};
}

Result<void> Device::restore(const DeviceState& state) {
  const auto other = [](std::string_view what) {
    return fail(EINVAL, fmt::format("virtio-blk: The state is that of another device: {}", what));
  };
  if (state.serial != properties_.serial) return other("it has another serial number");
  if (state.config != config_space(properties_, backend_.size(), state.write_cache))
    return other("it has another configuration space");
  if (state.queues.size() != properties_.queues) return other("it has another number of queues");
  PLATTER_TRY(set_features(state.features));
  set_write_cache(state.write_cache);
  status_.store(state.status, std::memory_order_release);
  return {};
}

}  // namespace platter::virtio::blk
