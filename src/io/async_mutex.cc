#include "io/async_mutex.h"

namespace platter::io {

bool AsyncMutex::enqueue(Waiter& waiter) {
  std::lock_guard guard(guard_);
  if (state_.exchange(kContended, std::memory_order_acq_rel) == kFree) {
    state_.store(kLocked, std::memory_order_relaxed);
    return false;
  }
  waiters_.push_back(waiter);
  return true;
}

Waiter& AsyncMutex::take_next() {
  const Reactor* here = Reactor::current();
  if (overtaking_ < kMaxOvertaking) {
    while (Waiter* next = waiters_.pop_front()) {
      if (next->reactor == here) {
        if (!overtaken_.empty()) ++overtaking_;
        return *next;
      }
      overtaken_.push_back(*next);
    }
  }
  overtaking_ = 0;
  waiters_.put_before(std::exchange(overtaken_, {}));
  Waiter* next = waiters_.pop_front();
  PLATTER_ASSERT(next != nullptr);
  return *next;
}

Waiter& AsyncMutex::hand_over() {
  std::lock_guard guard(guard_);
  Waiter& next = take_next();
  if (waiters_.empty() && overtaken_.empty()) state_.store(kLocked, std::memory_order_relaxed);
  return next;
}

}  // namespace platter::io
