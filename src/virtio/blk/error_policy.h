// ErrorPolicy: what a virtio-blk device does with requests that its disk fails, and whether it is
// stopped.
//
// A device that is stopped takes nothing from its queues. One that an error has stopped keeps the
// request that failed, and whatever fails after it; go_on() has the queues carry them out again
// (virtio/blk/queue_server.h). A reset of the device ends a stop by an error.
//
// Any thread. A request that succeeds costs one look at is_stopped().
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

#include "virtio/blk/properties.h"

namespace platter::virtio::blk {

enum class ErrorAction { kReport, kIgnore, kStop };

struct RequestFailure {
  bool read;
  int error;  // an errno
  ErrorAction action;
  bool stops;  // the device went on until now
};

class ErrorPolicy {
 public:
  enum class IoStatus { kOk, kFailed, kNoSpace };
  using Observer = std::function<void(const RequestFailure&)>;

  ErrorPolicy(OnError on_read, OnError on_write);

  // Hears of every failure, on the reactor of its queue. Before any queue runs.
  void set_observer(Observer observer) { observer_ = std::move(observer); }

  // A request has failed: what is to be done with it.
  ErrorAction judge(bool read, int error);

  bool is_stopped() const { return stops_.load(std::memory_order_acquire) != 0; }
  bool is_stopped_by_error() const {
    return (stops_.load(std::memory_order_acquire) & kByError) != 0;
  }
  void stop_by_user() { stops_.fetch_or(kByUser, std::memory_order_acq_rel); }
  // Ends every stop. Whoever runs the queues tells them afterwards (QueueServer::go_on()).
  void go_on();
  // Ends a stop by an error.
  void forget_stop();

  // Whether an error may stop the device, so that there is a status to tell.
  bool has_status() const;
  // Of the error that has stopped it first; kOk since go_on().
  IoStatus status() const { return status_.load(std::memory_order_acquire); }

 private:
  static constexpr uint8_t kByError = 1;
  static constexpr uint8_t kByUser = 2;

  ErrorAction action_for(bool read, int error) const;

  const OnError on_read_;
  const OnError on_write_;
  Observer observer_;
  std::atomic<uint8_t> stops_ = 0;
  std::atomic<IoStatus> status_ = IoStatus::kOk;
};

}  // namespace platter::virtio::blk
