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

void AsyncMutex::hand_over() {
  Waiter* next;
  {
    std::lock_guard guard(guard_);
    next = waiters_.pop_front();
    PLATTER_ASSERT(next != nullptr);
    if (waiters_.empty()) state_.store(kLocked, std::memory_order_relaxed);
  }
  // The new owner may destroy the mutex: nothing of it is touched from here.
  wake(*next);
}

}  // namespace platter::io
