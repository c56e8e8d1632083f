// WaitList: suspended tasks, first come, first served. The owner guards it with a mutex of its own, which it
// shares with the state that the tasks wait for: so no change can slip between a check and a wait.
#pragma once

#include <mutex>

#include "base/assert.h"
#include "io/reactor.h"

namespace platter::block {

class WaitList {
 public:
  ~WaitList() { PLATTER_ASSERT(first_ == nullptr); }

  // With the guard held.
  void append(io::Waiter& waiter) {
    waiter.next = nullptr;
    (first_ == nullptr ? first_ : last_->next) = &waiter;
    last_ = &waiter;
  }
  // With the guard held: takes all of them, to be woken by wake_all() once it is released.
  io::Waiter* take() {
    io::Waiter* taken = first_;
    first_ = last_ = nullptr;
    return taken;
  }
  static void wake_all(io::Waiter* taken) {
    while (taken != nullptr) {
      io::Waiter* next = taken->next;  // the waiter is gone once it is woken
      io::wake(*taken);
      taken = next;
    }
  }

 private:
  io::Waiter* first_ = nullptr;
  io::Waiter* last_ = nullptr;
};

// co_await WaitUntil(mutex, list, [&] { return holds(); }): suspends once, unless `holds` is true under the mutex. The
// awaiter looks again after it resumes.
template <typename Holds>
class WaitUntil {
 public:
  WaitUntil(std::mutex& mutex, WaitList& list, Holds holds)
      : mutex_(mutex), list_(list), holds_(std::move(holds)) {}

  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> handle) {
    std::lock_guard guard(mutex_);
    if (holds_()) return false;
    waiter_.handle = handle;
    waiter_.reactor = io::Reactor::current();
    PLATTER_ASSERT(waiter_.reactor != nullptr);
    list_.append(waiter_);
    return true;
  }
  void await_resume() const noexcept {}

 private:
  std::mutex& mutex_;
  WaitList& list_;
  Holds holds_;
  io::Waiter waiter_;
};

// The slot of this thread in arrays that are laid out by reactor.
inline unsigned reactor_slot() {
  const io::Reactor* reactor = io::Reactor::current();
  return reactor != nullptr ? reactor->index() : 0;
}

}  // namespace platter::block
