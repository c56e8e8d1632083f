// AsyncMutex: one task at a time.   auto lock = co_await mutex.lock();   co_await lock.pass();
//
// Ownership is handed to the task that waits longest on the reactor that gives it up, and after a
// named number of these to the one that waits longest on the others: waking another reactor takes
// longer than most of what is done under a lock.
#pragma once

#include <atomic>
#include <mutex>
#include <utility>

#include "io/reactor.h"
#include "io/waiter_list.h"

namespace platter::io {

class AsyncMutex {
 public:
  // How many tasks may overtake one that waits on another reactor.
  static constexpr unsigned kMaxOvertaking = 32;

  class [[nodiscard]] Lock {
   public:
    Lock() = default;
    Lock(Lock&& other) noexcept : mutex_(std::exchange(other.mutex_, nullptr)) {}
    Lock& operator=(Lock&& other) noexcept {
      if (this != &other) {
        unlock();
        mutex_ = std::exchange(other.mutex_, nullptr);
      }
      return *this;
    }
    ~Lock() { unlock(); }
    explicit operator bool() const { return mutex_ != nullptr; }
    void unlock() {
      if (AsyncMutex* mutex = std::exchange(mutex_, nullptr)) mutex->unlock();
    }
    // co_await lock.pass(): unlocks, and whoever waits on this reactor has its turn under the mutex
    // before the caller goes on. For those who have long work to do next: a waiter that owns the
    // mutex and cannot run yet keeps it from everybody. The lock must be held.
    auto pass() { return PassAwaiter{std::exchange(mutex_, nullptr)}; }

   private:
    friend class AsyncMutex;
    explicit Lock(AsyncMutex* mutex) : mutex_(mutex) {}
    AsyncMutex* mutex_ = nullptr;
  };

  AsyncMutex() = default;
  ~AsyncMutex() { PLATTER_ASSERT(state_.load(std::memory_order_acquire) == kFree); }
  AsyncMutex(const AsyncMutex&) = delete;
  AsyncMutex& operator=(const AsyncMutex&) = delete;

  // co_await gives a Lock.
  auto lock() { return Awaiter{*this, {}}; }
  Lock try_lock() { return take() ? Lock(this) : Lock(); }
  bool is_locked() const { return state_.load(std::memory_order_relaxed) != kFree; }

 private:
  enum State : int { kFree, kLocked, kContended };

  struct Awaiter {
    AsyncMutex& mutex;
    Waiter waiter;
    bool await_ready() const noexcept { return mutex.take(); }
    bool await_suspend(std::coroutine_handle<> handle) {
      waiter = {.handle = handle, .reactor = Reactor::current()};
      return mutex.enqueue(waiter);
    }
    Lock await_resume() const noexcept { return Lock(&mutex); }
  };

  struct PassAwaiter {
    AsyncMutex* mutex;
    bool await_ready() const noexcept { return mutex->release(); }
    std::coroutine_handle<> await_suspend(std::coroutine_handle<> handle) {
      Waiter& next = mutex->hand_over();
      Reactor* here = Reactor::current();
      if (next.reactor != here) {
        wake(next);
        return handle;
      }
      here->resume_later(handle);
      return next.handle;
    }
    void await_resume() const noexcept {}
  };

  bool take() {
    int expected = kFree;
    return state_.compare_exchange_strong(expected, kLocked, std::memory_order_acquire,
                                          std::memory_order_relaxed);
  }
  // False: somebody waits for it.
  bool release() {
    int expected = kLocked;
    return state_.compare_exchange_strong(expected, kFree, std::memory_order_release,
                                          std::memory_order_relaxed);
  }
  void unlock() {
    if (!release()) wake(hand_over());
  }
  bool enqueue(Waiter& waiter);  // false: it got the lock instead
  // The new owner. It may destroy the mutex once it runs: nothing of it is touched afterwards.
  Waiter& hand_over();
  Waiter& take_next();

  std::atomic<int> state_{kFree};
  std::mutex guard_;
  // Under guard_; not both empty if and only if state_ is kContended.
  WaiterList waiters_;
  WaiterList overtaken_;  // came before all of waiters_
  unsigned overtaking_ = 0;
};

}  // namespace platter::io
