#include "io/async_shared_mutex.h"

namespace platter::io {

// With kWaited set the state changes beside us only by those who leave.
WaiterList AsyncSharedMutex::admit() {
  WaiterList admitted;
  while (!waiters_.empty()) {
    auto* first = static_cast<Queued*>(waiters_.front());
    uint64_t inside = state_.load(std::memory_order_acquire) & ~kWaited;
    if (first->exclusive ? inside != 0 : (inside & kWriter) != 0) return admitted;
    state_.fetch_add(first->exclusive ? kWriter : kReader, std::memory_order_acq_rel);
    waiters_.remove(*first);
    first->entered = true;
    admitted.push_back(*first);
  }
  state_.fetch_and(~kWaited, std::memory_order_acq_rel);
  return admitted;
}

bool AsyncSharedMutex::enqueue(Queued& waiter) {
  WaiterList admitted;
  bool entered;
  {
    std::lock_guard guard(guard_);
    waiters_.push_back(waiter);
    state_.fetch_or(kWaited, std::memory_order_acq_rel);
    admitted = admit();
    entered = waiter.entered;
    if (entered) admitted.remove(waiter);
  }
  admitted.wake_all();
  return !entered;
}

void AsyncSharedMutex::leave(bool exclusive) {
  uint64_t one = exclusive ? kWriter : kReader;
  uint64_t left = state_.fetch_sub(one, std::memory_order_acq_rel) - one;
  // Readers that are still inside will see to it when the last of them leaves.
  if ((left & kWaited) == 0 || left != kWaited) return;
  WaiterList admitted;
  {
    std::lock_guard guard(guard_);
    admitted = admit();
  }
  admitted.wake_all();
}

}  // namespace platter::io
