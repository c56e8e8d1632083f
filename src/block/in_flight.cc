#include "block/in_flight.h"

namespace platter::block {

bool InFlight::is_zero(uint32_t phase) const {
  for (const Slot& slot : slots_) {
    if (slot.counts[phase].load(std::memory_order_seq_cst) != 0) return false;
  }
  return true;
}

void InFlight::notify() {
  io::WaiterList woken;
  {
    std::lock_guard guard(mutex_);
    woken = std::exchange(changed_, {});
  }
  woken.wake_all();
}

io::Task<void> InFlight::wait_entry() {
  while (stops_.load(std::memory_order_seq_cst) != 0) {
    co_await WaitUntil(mutex_, started_, [this] { return stops_.load() == 0; });
  }
}

void InFlight::stop() { stops_.fetch_add(1, std::memory_order_seq_cst); }

void InFlight::start() {
  io::WaiterList woken;
  {
    std::lock_guard guard(mutex_);
    if (stops_.fetch_sub(1, std::memory_order_seq_cst) == 1) woken = std::exchange(started_, {});
  }
  woken.wake_all();
}

// A count that is zero once stays zero (no one enters while stopped; no newcomer is of the old
// phase), but for the instants in which a request that is turned away takes its count back: those
// end with a notify().
io::Task<void> InFlight::empty() {
  watchers_.fetch_add(1, std::memory_order_seq_cst);
  while (!is_zero(0) || !is_zero(1)) {
    co_await WaitUntil(mutex_, changed_, [this] { return is_zero(0) && is_zero(1); });
  }
  watchers_.fetch_sub(1, std::memory_order_seq_cst);
}

io::Task<void> InFlight::grace() {
  auto one_at_a_time = co_await grace_.lock();
  const uint32_t old = phase_.load(std::memory_order_relaxed);
  phase_.store(1 - old, std::memory_order_seq_cst);
  watchers_.fetch_add(1, std::memory_order_seq_cst);
  while (!is_zero(old)) {
    co_await WaitUntil(mutex_, changed_, [this, old] { return is_zero(old); });
  }
  watchers_.fetch_sub(1, std::memory_order_seq_cst);
}

}  // namespace platter::block
