// Session: one front-end, from its connection to its end: what it asks for (the vhost-user
// protocol, "Front-end message types"), carried out on the device.
//
// A message that cannot be carried out is answered with a failure where the front-end asked for an
// answer; else, and where what came is no message at all, the session ends with a line in the log.
// Whatever a front-end does, or however it goes, its queues are stopped, with what they had under
// way, before run() returns.
//
// For one reactor; the queues run on theirs.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "base/log.h"
#include "export/vhost_user/channel.h"
#include "export/vhost_user/inflight_area.h"
#include "export/vhost_user/memory_table.h"
#include "export/vhost_user/message.h"
#include "export/vhost_user/state_transfer.h"
#include "export/vhost_user/vring.h"
#include "virtio/blk/device.h"

namespace platter::vhost_user {

class Session {
 public:
  // Queue i runs on reactors[i % size]. All outlive it.
  Session(io::Descriptor socket, virtio::blk::Device& device,
          const std::vector<io::Reactor*>& reactors, const base::Log& log);

  io::Task<void> run();
  // Ends it soon.
  void cancel() { channel_.cancel(); }
  // The device's configuration is another one: tells the front-end, where it wants to know.
  void config_changed();
  // The device does, after a stop: its queues hear of it.
  void go_on();

 private:
  // What goes back: nothing, but where an acknowledgement was asked for; or a payload.
  struct Answer {
    Answer(std::vector<uint8_t> bytes) : payload(std::move(bytes)) {}
    Answer(std::vector<uint8_t> bytes, io::Descriptor with)
        : payload(std::move(bytes)), descriptor(std::move(with)) {}

    std::vector<uint8_t> payload;
    io::Descriptor descriptor = {};  // none, mostly
  };
  using Reply = std::optional<Answer>;

  io::Task<Result<void>> serve();
  io::Task<Result<void>> answer(const Message& message, Result<Reply> reply);
  io::Task<Result<Reply>> carry_out(Message& message);
  Result<Reply> tell(const Message& message);
  Result<void> set_up(Message& message);
  io::Task<Result<Reply>> change(Message& message);

  Result<Reply> get_config(const Message& message) const;
  Result<Reply> get_inflight(const Message& message) const;
  Result<void> set_inflight(Message& message);
  Result<void> check_inflight(const InflightDescription& description) const;
  void warn(const Message& message, Error error);
  Result<void> check_stopped() const;
  io::Task<Result<void>> begin_state_transfer(Message& message);
  // What was loaded becomes the device's state.
  io::Task<Result<void>> end_state_transfer();
  Result<void> restore(std::span<const uint8_t> bytes);
  io::Task<void> drop_state_transfer();
  io::Task<Result<void>> change_memory(Message& message);
  io::Task<void> use_log();
  io::Task<Result<void>> set_status(uint64_t status);
  // As at its start. A device that the front-end resets has nothing in flight; one that it leaves
  // may be found again.
  io::Task<void> reset();
  using Kept = virtio::blk::QueueServer::Kept;
  io::Task<void> stop_vrings(Kept kept);
  Result<Vring*> vring(uint32_t index);
  uint64_t offered_features() const;

  Channel channel_;
  virtio::blk::Device& device_;
  const base::Log& log_;
  MemoryTable memory_;
  std::vector<std::unique_ptr<Vring>> vrings_;
  io::Descriptor backend_channel_;  // where the front-end hears our own requests
  uint64_t protocol_features_ = 0;
  std::shared_ptr<virtio::DirtyLog> log_pages_;  // that a migration looks at
  bool logs_ = false;                            // the front-end wants it kept
  std::shared_ptr<InflightArea> inflight_;
  std::unique_ptr<StateTransfer> state_transfer_;  // until it has been asked for
};

}  // namespace platter::vhost_user
