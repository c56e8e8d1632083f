// AsyncSharedMutex: many readers or one writer.
//
//   auto shared = co_await mutex.lock_shared();      auto lock = co_await mutex.lock();
//
// First come, first served: a writer that waits holds back readers that come after it, and readers
// that wait together enter together.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <utility>

#include "io/reactor.h"
#include "io/waiter_list.h"

namespace platter::io {

class AsyncSharedMutex {
 public:
  // A reader's or the writer's hold.
  template <bool kExclusive>
  class [[nodiscard]] Hold {
   public:
    Hold() = default;
    Hold(Hold&& other) noexcept : mutex_(std::exchange(other.mutex_, nullptr)) {}
    Hold& operator=(Hold&& other) noexcept {
      if (this != &other) {
        unlock();
        mutex_ = std::exchange(other.mutex_, nullptr);
      }
      return *this;
    }
    ~Hold() { unlock(); }
    explicit operator bool() const { return mutex_ != nullptr; }
    void unlock() {
      if (AsyncSharedMutex* mutex = std::exchange(mutex_, nullptr)) mutex->leave(kExclusive);
    }

   private:
    friend class AsyncSharedMutex;
    explicit Hold(AsyncSharedMutex* mutex) : mutex_(mutex) {}
    AsyncSharedMutex* mutex_ = nullptr;
  };
  using Lock = Hold<true>;
  using SharedLock = Hold<false>;

  AsyncSharedMutex() = default;
  ~AsyncSharedMutex() { PLATTER_ASSERT(state_.load(std::memory_order_acquire) == 0); }
  AsyncSharedMutex(const AsyncSharedMutex&) = delete;
  AsyncSharedMutex& operator=(const AsyncSharedMutex&) = delete;

  auto lock() { return Awaiter<true>{*this}; }
  auto lock_shared() { return Awaiter<false>{*this}; }
  Lock try_lock() { return enter(true) ? Lock(this) : Lock(); }
  SharedLock try_lock_shared() { return enter(false) ? SharedLock(this) : SharedLock(); }

 private:
  static constexpr uint64_t kWriter = 1;
  static constexpr uint64_t kWaited = 2;  // somebody waits: nobody enters but from the queue
  static constexpr uint64_t kReader = 4;

  struct Queued : Waiter {
    bool exclusive = false;
    bool entered = false;
  };
  template <bool kExclusive>
  struct Awaiter : Queued {
    AsyncSharedMutex& mutex;
    explicit Awaiter(AsyncSharedMutex& owner) : mutex(owner) {}
    bool await_ready() const noexcept { return mutex.enter(kExclusive); }
    bool await_suspend(std::coroutine_handle<> suspended) {
      handle = suspended;
      reactor = Reactor::current();
      exclusive = kExclusive;
      return mutex.enqueue(*this);
    }
    Hold<kExclusive> await_resume() const noexcept { return Hold<kExclusive>(&mutex); }
  };

  bool enter(bool exclusive) {
    uint64_t state = state_.load(std::memory_order_relaxed);
    do {
      if (exclusive ? state != 0 : (state & (kWriter | kWaited)) != 0) return false;
    } while (!state_.compare_exchange_weak(state, state + (exclusive ? kWriter : kReader),
                                           std::memory_order_acquire, std::memory_order_relaxed));
    return true;
  }
  void leave(bool exclusive);
  bool enqueue(Queued& waiter);  // false: it entered instead
  WaiterList admit();            // under guard_

  std::atomic<uint64_t> state_{0};  // readers * kReader | kWaited | kWriter
  std::mutex guard_;
  WaiterList waiters_;
};

}  // namespace platter::io
