// EventLimit: an event that may come often, told once a second at most. The last one of a second is
// told when the second is over; those before it are not.
//
// For one reactor.
#pragma once

#include <chrono>
#include <functional>
#include <optional>

#include "base/json.h"
#include "io/cancel.h"
#include "io/gate.h"

namespace platter::monitor {

class EventLimit {
 public:
  static constexpr std::chrono::seconds kPeriod{1};

  explicit EventLimit(std::function<void(base::Json)> tell) : tell_(std::move(tell)) {}

  void offer(base::Json event) {
    if (resting_) {
      last_ = std::move(event);
      return;
    }
    tell_(std::move(event));
    resting_ = true;
    tasks_.spawn(*io::Reactor::current(), rest());
  }
  // Nothing is told any more.
  io::Task<void> close() {
    closing_.cancel();
    return tasks_.close();
  }

 private:
  io::Task<void> rest() {
    while (co_await io::sleep_for(kPeriod, closing_.token()) && last_) {
      base::Json event = std::move(*last_);
      last_.reset();
      tell_(std::move(event));
    }
    resting_ = false;
  }

  const std::function<void(base::Json)> tell_;
  std::optional<base::Json> last_;
  bool resting_ = false;
  io::CancelSource closing_;
  io::Gate tasks_;
};

}  // namespace platter::monitor
