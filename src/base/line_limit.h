// LineLimit: how many lines somebody may have written into a log each second, so that whoever
// causes them can neither fill a disk nor hold up whoever writes them.
//
// Any thread.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>

namespace platter::base {

class LineLimit {
 public:
  explicit LineLimit(unsigned lines_a_second) : lines_a_second_(lines_a_second) {}

  // Nothing: this line is left out. Else how many were, since the last one that was not. `now`: of
  // one clock, always.
  std::optional<uint64_t> admit(std::chrono::nanoseconds now) {
    const int64_t second = std::chrono::duration_cast<std::chrono::seconds>(now).count();
    int64_t current = second_.load(std::memory_order_relaxed);
    if (current != second && second_.compare_exchange_strong(current, second))
      lines_.store(0, std::memory_order_relaxed);
    if (lines_.fetch_add(1, std::memory_order_relaxed) >= lines_a_second_) {
      left_out_.fetch_add(1, std::memory_order_relaxed);
      return std::nullopt;
    }
    return left_out_.exchange(0, std::memory_order_relaxed);
  }

 private:
  const unsigned lines_a_second_;
  std::atomic<int64_t> second_{-1};  // in which lines_ were written
  std::atomic<unsigned> lines_{0};
  std::atomic<uint64_t> left_out_{0};
};

}  // namespace platter::base
