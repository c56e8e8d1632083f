// AsyncSemaphore: counts units (bytes in flight, slots).   auto units = co_await
// semaphore.acquire(n);
//
// First come, first served: a large request that waits holds back small ones behind it.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <utility>

#include "io/reactor.h"
#include "io/waiter_list.h"

namespace platter::io {

class AsyncSemaphore {
 public:
  class [[nodiscard]] Units {
   public:
    Units() = default;
    Units(Units&& other) noexcept
        : semaphore_(std::exchange(other.semaphore_, nullptr)), count_(other.count_) {}
    Units& operator=(Units&& other) noexcept {
      if (this != &other) {
        release();
        semaphore_ = std::exchange(other.semaphore_, nullptr);
        count_ = other.count_;
      }
      return *this;
    }
    ~Units() { release(); }
    explicit operator bool() const { return semaphore_ != nullptr; }
    uint64_t count() const { return semaphore_ != nullptr ? count_ : 0; }
    void release() {
      if (AsyncSemaphore* semaphore = std::exchange(semaphore_, nullptr))
        semaphore->release(count_);
    }

   private:
    friend class AsyncSemaphore;
    Units(AsyncSemaphore* semaphore, uint64_t count) : semaphore_(semaphore), count_(count) {}
    AsyncSemaphore* semaphore_ = nullptr;
    uint64_t count_ = 0;
  };

  explicit AsyncSemaphore(uint64_t units) : state_(units << 1) {}
  ~AsyncSemaphore() { PLATTER_ASSERT(waiters_.empty()); }
  AsyncSemaphore(const AsyncSemaphore&) = delete;
  AsyncSemaphore& operator=(const AsyncSemaphore&) = delete;

  // co_await gives Units. More than there are in all would wait for ever: the caller's business.
  auto acquire(uint64_t count) { return Awaiter{{}, *this, count}; }
  Units try_acquire(uint64_t count) { return take(count) ? Units(this, count) : Units(); }
  uint64_t available() const { return state_.load(std::memory_order_relaxed) >> 1; }
  // Adds units; those that acquire() gave return by themselves.
  void release(uint64_t count);

 private:
  static constexpr uint64_t kWaited = 1;  // somebody waits: nobody takes but from the queue

  struct Awaiter : Waiter {
    AsyncSemaphore& semaphore;
    uint64_t count;
    Awaiter(Waiter waiter, AsyncSemaphore& owner, uint64_t units)
        : Waiter(waiter), semaphore(owner), count(units) {}
    bool await_ready() const noexcept { return semaphore.take(count); }
    bool await_suspend(std::coroutine_handle<> suspended) {
      handle = suspended;
      reactor = Reactor::current();
      return semaphore.enqueue(*this);
    }
    Units await_resume() const noexcept { return Units(&semaphore, count); }
  };

  bool take(uint64_t count);
  bool enqueue(Awaiter& awaiter);  // false: it got its units instead
  WaiterList grant();              // under guard_

  std::atomic<uint64_t> state_;  // units << 1 | kWaited
  std::mutex guard_;
  WaiterList waiters_;
};

}  // namespace platter::io
