// Vring: one virtqueue as a front-end sets it up, and its service once it is complete.
//
// A vring runs from when it has everything (size, addresses, a way to be notified, and is enabled)
// until it is stopped. Setting it up happens on the session's reactor, its service on its own.
#pragma once

#include <memory>
#include <optional>

#include "base/log.h"
#include "export/vhost_user/inflight_area.h"
#include "export/vhost_user/memory_table.h"
#include "export/vhost_user/message.h"
#include "io/descriptor.h"
#include "io/gate.h"
#include "virtio/blk/queue_server.h"

namespace platter::vhost_user {

class Vring {
 public:
  // All outlive it.
  Vring(uint32_t index, io::Reactor& reactor, virtio::blk::Device& device, const base::Log& log);
  ~Vring();  // stopped
  Vring(const Vring&) = delete;
  Vring& operator=(const Vring&) = delete;

  // EBUSY: it runs, and would need something else.
  Result<void> set_size(uint32_t size);
  Result<void> set_address(const VringAddress& address);
  Result<void> set_base(uint32_t base);
  // Without a descriptor: the ring is looked at for ever.
  io::Task<void> set_kick(io::Descriptor kick);
  io::Task<void> set_call(io::Descriptor call);
  void set_error(io::Descriptor error);
  // Where requests in flight are noted from the next start on.
  void set_inflight(std::shared_ptr<InflightArea> inflight) {
    inflight_ = std::move(inflight);
    has_ended_ = false;
  }
  void set_enabled(bool enabled) { enabled_ = enabled; }
  // The memory has changed.
  io::Task<Result<void>> set_memory(std::shared_ptr<const virtio::GuestMemory> memory);

  // Null: no writes are noted.
  io::Task<void> set_log(std::shared_ptr<virtio::DirtyLog> log);

  // Of a ring that does not run; a front-end gives it the rest.
  virtio::blk::DeviceState::Queue state() const;
  void restore(const virtio::blk::DeviceState::Queue& state);

  bool is_running() const { return running_ != nullptr; }
  // The device goes on after a stop.
  void go_on();
  // It was stopped while the disk failed, and has left requests to whoever runs it next.
  bool has_left() const { return has_left_; }
  // It ran, and was stopped with nothing left in flight.
  bool has_ended() const { return has_ended_; }
  // Begins, if nothing is missing. EINVAL: the ring cannot be.
  io::Task<Result<void>> start_if_ready(const MemoryTable& memory);
  // Ends it, if it runs, with what is under way. Requests that wait for the disk of a stopped
  // device are left to the next start where they are noted in flight and the notes last, and fail
  // where not. The notes do not last where the front-end logs what is written, as it takes its
  // machine elsewhere; nor where it tells the device's status, of which it makes 0 when it pauses
  // its machine (QEMU), which is a reset.
  io::Task<void> stop();
  io::Task<void> stop(virtio::blk::QueueServer::Kept kept);
  // Where a ring that does not run goes on (SET_VRING_BASE).
  uint32_t base() const;
  // The descriptors are given back; it runs again when there is a new one for the kick.
  void forget_events();
  // As it was made; but base() still tells where it ended. A front-end that migrates its machine
  // may reset the device first and ask then (QEMU before 8.0).
  void forget();

 private:
  class Running;

  Result<std::unique_ptr<virtio::Queue>> make_queue(const MemoryTable& memory) const;
  bool is_packed() const;
  std::optional<uint64_t> logged_ring() const;

  const uint32_t index_;
  io::Reactor& reactor_;
  virtio::blk::Device& device_;
  const base::Log& log_;

  uint32_t size_ = 0;
  std::optional<VringAddress> address_;
  uint32_t base_ = 0;
  bool has_base_ = false;
  std::optional<uint32_t> stopped_at_;    // since it ran, until it gets another base
  std::shared_ptr<io::Descriptor> kick_;  // null: not given; it may hold none
  std::shared_ptr<io::Descriptor> call_;
  std::shared_ptr<io::Descriptor> error_;
  std::shared_ptr<virtio::DirtyLog> log_pages_;
  std::shared_ptr<InflightArea> inflight_;
  bool enabled_ = false;
  bool stopping_ = false;
  bool has_left_ = false;
  bool has_ended_ = false;
  std::unique_ptr<Running> running_;
};

}  // namespace platter::vhost_user
