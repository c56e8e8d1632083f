// The devices of a daemon: virtio-blk devices that front-ends reach by vhost-user (--device,
// device_add), and whether they run.
//
// A device that an error has stopped (virtio/blk/error_policy.h) stays so until go_on(); the others
// go on meanwhile. BLOCK_IO_ERROR tells of requests that the disk fails, once a second of each
// device at most; STOP and RESUME of what run_state() is.
//
// One reactor, where it hears of failures, too; one call at a time.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/log.h"
#include "block/graph.h"
#include "io/reactor.h"
#include "io/task.h"
#include "monitor/device_options.h"
#include "monitor/failure.h"
#include "monitor/objects.h"

namespace platter::monitor {

class Devices {
 public:
  enum class RunState { kRunning, kPaused, kIoError };
  using Notifier = std::function<void(std::string_view event, base::Json data)>;
  struct Listed {
    std::string id;
    const block::Backend& backend;
    const virtio::blk::ErrorPolicy& errors;
  };

  // All of it outlives the devices. `reactors`: at least one.
  Devices(std::vector<io::Reactor*> reactors, const Objects& objects, const base::Log& log);
  Devices(const Devices&) = delete;
  Devices& operator=(const Devices&) = delete;
  ~Devices();  // all are removed (asserted)

  // Before any is added.
  void set_notifier(Notifier notifier) { notifier_ = std::move(notifier); }
  // Of devices that are added from now on, requests that take longer are told of in the log.
  void set_slow_request(io::Nanoseconds time) { slow_request_ = time; }

  // `options`: as the schema's DeviceOptions has them.
  io::Task<Reply> add(block::Graph& graph, base::Json options);
  io::Task<Reply> remove(std::string id);
  io::Task<Result<void>> close_all();
  // Nodes were resized.
  void sizes_may_have_changed();

  std::vector<Listed> list() const;
  // A queue of a device runs on it.
  bool use_io_thread(std::string_view id) const;

  // No device takes anything from its queues any more; requests in flight have ended, but for those
  // that a device keeps until it goes on; what was written is flushed. An error is the first one of
  // a flush: all devices are stopped and flushed nevertheless.
  io::Task<Result<void>> stop();
  // Every device does, whatever has stopped it.
  void go_on();
  RunState run_state() const { return state_; }

 private:
  struct Entry;

  io::Task<Result<std::vector<io::Reactor*>>> reactors_for(std::vector<std::string> iothreads);
  io::Task<Result<void>> start(Entry& entry, block::Node& node, DeviceOptions options);
  void hear(Entry& entry, io::Reactor& home, const virtio::blk::RequestFailure& failure);
  io::Task<void> tell(Entry& entry, virtio::blk::RequestFailure failure);
  io::Task<Result<void>> close(std::unique_ptr<Entry> entry);
  io::Task<void> finish_turns();
  io::Task<Result<void>> flush();
  void notify(std::string_view event, base::Json data = base::Json::object());

  const std::vector<io::Reactor*> reactors_;
  const Objects& objects_;
  const base::Log& log_;
  Notifier notifier_;
  io::Nanoseconds slow_request_{};
  std::vector<std::unique_ptr<Entry>> entries_;
  RunState state_ = RunState::kRunning;
};

}  // namespace platter::monitor
