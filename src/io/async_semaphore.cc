#include "io/async_semaphore.h"

namespace platter::io {

bool AsyncSemaphore::take(uint64_t count) {
  uint64_t state = state_.load(std::memory_order_relaxed);
  do {
    if ((state & kWaited) != 0 || (state >> 1) < count) return false;
  } while (!state_.compare_exchange_weak(state, state - (count << 1), std::memory_order_acquire,
                                         std::memory_order_relaxed));
  return true;
}

// With kWaited set only releases change the state beside us, and they only add.
WaiterList AsyncSemaphore::grant() {
  WaiterList granted;
  while (!waiters_.empty()) {
    auto* first = static_cast<Awaiter*>(waiters_.front());
    if ((state_.load(std::memory_order_acquire) >> 1) < first->count) return granted;
    state_.fetch_sub(first->count << 1, std::memory_order_acq_rel);
    waiters_.remove(*first);
    granted.push_back(*first);
  }
  state_.fetch_and(~kWaited, std::memory_order_acq_rel);
  return granted;
}

bool AsyncSemaphore::enqueue(Awaiter& awaiter) {
  WaiterList granted;
  bool got_it = false;
  {
    std::lock_guard guard(guard_);
    waiters_.push_back(awaiter);
    state_.fetch_or(kWaited, std::memory_order_acq_rel);
    granted = grant();
    for (Waiter* waiter = granted.front(); waiter != nullptr; waiter = waiter->next)
      if (waiter == &awaiter) got_it = true;
    if (got_it) granted.remove(awaiter);
  }
  granted.wake_all();
  return !got_it;
}

void AsyncSemaphore::release(uint64_t count) {
  uint64_t before = state_.fetch_add(count << 1, std::memory_order_acq_rel);
  if ((before & kWaited) == 0) return;
  WaiterList granted;
  {
    std::lock_guard guard(guard_);
    granted = grant();
  }
  granted.wake_all();
}

}  // namespace platter::io
