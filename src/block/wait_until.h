// Waiting for a condition that other tasks bring about, under a mutex of the owner's: no change can
// slip between the check and the wait. For this room alone.
#pragma once

#include <mutex>
#include <utility>

#include "base/assert.h"
#include "io/reactor.h"
#include "io/waiter_list.h"

namespace platter::block {

// co_await WaitUntil(mutex, list, [&] { return holds(); }): suspends once, unless `holds` is true
// under the mutex. The awaiter looks again after it resumes. Whoever makes it true takes the list
// under the mutex and wakes it after.
template <typename Holds>
class WaitUntil {
 public:
  WaitUntil(std::mutex& mutex, io::WaiterList& list, Holds holds)
      : mutex_(mutex), list_(list), holds_(std::move(holds)) {}

  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> handle) {
    std::lock_guard guard(mutex_);
    if (holds_()) return false;
    waiter_.handle = handle;
    waiter_.reactor = io::Reactor::current();
    PLATTER_ASSERT(waiter_.reactor != nullptr);
    list_.push_back(waiter_);
    return true;
  }
  void await_resume() const noexcept {}

 private:
  std::mutex& mutex_;
  io::WaiterList& list_;
  Holds holds_;
  io::Waiter waiter_;
};

// The slot of this thread in arrays that are laid out by reactor.
inline unsigned reactor_slot() {
  const io::Reactor* reactor = io::Reactor::current();
  return reactor != nullptr ? reactor->index() : 0;
}

}  // namespace platter::block
