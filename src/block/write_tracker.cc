#include "block/write_tracker.h"

namespace platter::block {

bool WriteTracker::no_ordinary() const {
  for (const Slot& slot : ordinary_) {
    if (slot.count.load(std::memory_order_seq_cst) != 0) return false;
  }
  return true;
}

void WriteTracker::notify() {
  io::WaiterList woken;
  {
    std::lock_guard guard(mutex_);
    woken = std::exchange(quiet_, {});
  }
  woken.wake_all();
}

WriteTracker::Write* WriteTracker::conflict(const Write& write) const {
  for (Write* other = write.previous; other != nullptr; other = other->previous) {
    if (!write.serialising && !other->serialising) continue;
    if (other->begin < write.end && write.begin < other->end) return other;
  }
  return nullptr;
}

// Resumes with true if there was no conflict to wait for.
struct WriteTracker::WaitForConflict {
  WriteTracker& tracker;
  const Write& write;
  io::Waiter waiter;
  bool waited = false;

  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> handle) {
    std::lock_guard guard(tracker.mutex_);
    Write* other = tracker.conflict(write);
    if (other == nullptr) return false;
    waited = true;
    waiter.handle = handle;
    waiter.reactor = io::Reactor::current();
    other->waiting.push_back(waiter);
    return true;
  }
  bool await_resume() const noexcept { return !waited; }
};

// Only earlier writes are waited for, so the waits have an order and cannot form a circle.
io::Task<void> WriteTracker::enter(Write& write) {
  {
    std::lock_guard guard(mutex_);
    if (write.serialising) serialising_.fetch_add(1, std::memory_order_seq_cst);
    write.previous = last_;
    if (last_ != nullptr) last_->next = &write;
    last_ = &write;
  }
  while (write.serialising && !no_ordinary()) {
    co_await WaitUntil(mutex_, quiet_, [this] { return no_ordinary(); });
  }
  bool clear = false;
  while (!clear) clear = co_await WaitForConflict{*this, write, {}};
}

void WriteTracker::leave(Write& write) {
  io::WaiterList woken;
  {
    std::lock_guard guard(mutex_);
    if (write.previous != nullptr) write.previous->next = write.next;
    (write.next != nullptr ? write.next->previous : last_) = write.previous;
    if (write.serialising) serialising_.fetch_sub(1, std::memory_order_seq_cst);
    woken = std::exchange(write.waiting, {});
  }
  woken.wake_all();
}

}  // namespace platter::block
