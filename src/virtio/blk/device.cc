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

bool is_host_managed(const Properties& properties) {
  return properties.zoned && properties.zoned->model == block::ZoneModel::kHostManaged;
}

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
  properties.zoned = backend.zoned_characteristics();
  if (is_host_managed(properties)) properties.discard = false;
  PLATTER_TRY(check(properties));
  return std::unique_ptr<Device>(new Device(backend, std::move(properties)));
}

Result<void> Device::set_features(uint64_t features) {
  if ((features & ~offered_) != 0) {
    return fail(EINVAL, fmt::format("virtio-blk: The driver takes features {:#x}, which are not "
                                    "offered",
                                    features & ~offered_));
  }
  PLATTER_TRY(check_zones(features));
  take_features(features);
  return {};
}

Result<void> Device::check_zones(uint64_t features) const {
  const bool zoned = (features & kZoned) != 0;
  if (zoned && (features & kVersion1) == 0)
    return fail(EINVAL, "virtio-blk: The driver takes zones, which are for VERSION_1 only");
  if (!zoned && is_host_managed(properties_)) {
    return fail(EINVAL,
                "virtio-blk: The disk is host-managed: a driver that does not take its "
                "zones (VIRTIO_BLK_F_ZONED) cannot use it");
  }
  return {};
}

void Device::take_features(uint64_t features) {
  features_.store(features, std::memory_order_relaxed);
  executor_.use_zones((features & kZoned) != 0);
}

size_t Device::config_bytes() const { return blk::config_bytes(offered_); }

// A request of the space may be longer than it is: what comes after its last field reads zero.
void Device::read_config(size_t offset, std::span<uint8_t> bytes) const {
  auto space = config_space(properties_, backend_.size(), write_cache());
  // To a driver that has chosen not to see zones there are none.
  const uint64_t taken = features();
  if (taken != 0 && (taken & kZoned) == 0) std::fill(space.begin() + kZonedOffset, space.end(), 0);
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
  if ((status & ~before & (kFeaturesOk | kDriverOk)) != 0) PLATTER_TRY(check_zones(features()));
  if (starts) start();
  status_.fetch_or(status & ~kNeedsReset, std::memory_order_acq_rel);
  return {};
}

void Device::start() {
  if ((features() & kConfigWce) == 0) set_write_cache((features() & kFlush) != 0);
}

void Device::reset() {
  take_features(0);
  set_write_cache(initial_write_cache_);
  errors_.forget_stop();
  status_.store(0, std::memory_order_release);
}

DeviceState Device::state() const {
  return {.features = features(),
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
  if (state.features != 0 || (state.status & (kFeaturesOk | kDriverOk)) != 0) {
    PLATTER_TRY(set_features(state.features));
  } else {
    take_features(0);  // its driver has not chosen yet
  }
  set_write_cache(state.write_cache);
  status_.store(state.status, std::memory_order_release);
  return {};
}

}  // namespace platter::virtio::blk
