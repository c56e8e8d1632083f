// Pace: spreads bytes over time. Whoever wants to move some reserves them, and waits until those
// before it have had their time; the first one waits for nothing. Shared by the workers of a job.
#pragma once

#include <algorithm>
#include <cstdint>
#include <mutex>

#include "io/cancel.h"
#include "io/reactor.h"
#include "io/task.h"

namespace platter::job {

class Pace {
 public:
  // 0: no limit.
  explicit Pace(uint64_t bytes_per_second) : bytes_per_second_(bytes_per_second) {}

  // Ends early when the job is cancelled.
  io::Task<void> wait(uint64_t bytes, io::CancelToken cancel) {
    if (bytes_per_second_ == 0) return io::Task<void>::ready();
    return wait_for_turn(bytes, cancel);
  }

 private:
  io::Task<void> wait_for_turn(uint64_t bytes, io::CancelToken cancel) {
    const io::Nanoseconds now = io::Reactor::current()->now();
    io::Nanoseconds start;
    {
      std::lock_guard lock(mutex_);
      start = std::max(next_, now);
      const double seconds = static_cast<double>(bytes) / static_cast<double>(bytes_per_second_);
      const double longest = static_cast<double>(kLongest.count());
      next_ = start + io::Nanoseconds(static_cast<int64_t>(std::min(seconds * 1e9, longest)));
    }
    if (start > now) co_await io::sleep_for(start - now, cancel);
  }

  // One step: keeps sums of times far from overflow.
  static constexpr io::Nanoseconds kLongest = std::chrono::hours(24);

  const uint64_t bytes_per_second_;
  std::mutex mutex_;
  io::Nanoseconds next_{0};
};

}  // namespace platter::job
