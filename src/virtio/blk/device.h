// Device: what the queues of one virtio-blk device share: what it offers and was asked for, its
// configuration space, its status, and the disk behind it (virtio 1.3, 2.1 to 2.5 and 5.2). It
// knows no transport: that one passes on what a driver writes to it, runs its queues
// (virtio/blk/queue_server.h), and stops them all before reset().
//
// Threads: requests, read_config() and break_down() from any; everything else from one at a time.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>

#include "block/backend.h"
#include "platter/error.h"
#include "virtio/blk/device_state.h"
#include "virtio/blk/error_policy.h"
#include "virtio/blk/properties.h"
#include "virtio/blk/request.h"
#include "virtio/blk/slow_requests.h"

namespace platter::virtio::blk {

// Bits of the device's status (virtio 1.2, 2.1).
inline constexpr uint8_t kAcknowledge = 1;
inline constexpr uint8_t kDriver = 2;
inline constexpr uint8_t kDriverOk = 4;
inline constexpr uint8_t kFeaturesOk = 8;
inline constexpr uint8_t kNeedsReset = 64;
inline constexpr uint8_t kFailed = 128;

class Device {
 public:
  // EINVAL: properties that cannot be (check()). The backend outlives the device. A disk that may
  // only be read has properties.read_only.
  static Result<std::unique_ptr<Device>> make(block::Backend& backend, Properties properties);

  const Properties& properties() const { return properties_; }
  Executor& executor() { return executor_; }
  // Any thread.
  ErrorPolicy& errors() { return errors_; }
  const ErrorPolicy& errors() const { return errors_; }
  // From now on requests that take longer are told of; null: none. Before any queue runs.
  void watch_slow_requests(std::unique_ptr<SlowRequests> slow) { slow_ = std::move(slow); }
  SlowRequests* slow_requests() const { return slow_.get(); }

  // Of the device type, and those that every device has: any layout, indirect descriptors, event
  // index, version 1, packed rings, order kept, notification when empty.
  uint64_t offered_features() const { return offered_; }
  uint64_t features() const { return features_.load(std::memory_order_relaxed); }
  // EINVAL: something that is not offered; or the disk's zones have to be known, and the driver
  // does not know them.
  Result<void> set_features(uint64_t features);

  // As the driver sees it; zeroes past its end.
  void read_config(size_t offset, std::span<uint8_t> bytes) const;
  // EINVAL: a field that a driver may not write, or a value that it cannot have.
  Result<void> write_config(size_t offset, std::span<const uint8_t> bytes);
  size_t config_bytes() const;
  // Changes whenever the space does but by the driver's own writes.
  uint32_t config_generation() const;

  uint8_t status() const { return status_.load(std::memory_order_acquire); }
  // 0 is reset(). EINVAL: bits that were set go away otherwise, or features are called fine that
  // are not.
  Result<void> set_status(uint8_t status);
  // The driver is about to use its queues: without CONFIG_WCE the cache follows FLUSH.
  void start();
  // As after make(); but a device that its user has stopped stays so. No queue runs.
  void reset();

  // All but the queues, which the transport has. No queue runs.
  DeviceState state() const;
  // Goes on from it. EINVAL: its driver would see another device now, or it has features that are
  // not offered; nothing has changed then.
  Result<void> restore(const DeviceState& state);

  // A driver broke the rules so that what it says means nothing: it must reset the device.
  void break_down() { status_.fetch_or(kNeedsReset, std::memory_order_acq_rel); }
  bool is_broken() const { return (status() & kNeedsReset) != 0; }

 private:
  Device(block::Backend& backend, Properties properties);
  bool write_cache() const { return write_cache_.load(std::memory_order_relaxed); }
  void set_write_cache(bool on);
  void take_features(uint64_t features);
  Result<void> check_zones(uint64_t features) const;

  block::Backend& backend_;
  const Properties properties_;
  const bool initial_write_cache_;
  const uint64_t offered_;
  Executor executor_;
  ErrorPolicy errors_;
  std::atomic<uint64_t> features_ = 0;
  std::unique_ptr<SlowRequests> slow_;
  std::atomic<bool> write_cache_;
  std::atomic<uint8_t> status_ = 0;
};

}  // namespace platter::virtio::blk
