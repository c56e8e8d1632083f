// Event: set once, stays set until reset; wakes all who wait.
//
// set() touches nothing of the event after the instant at which a waiter can see it set, so an
// event may live in the frame of the task that waits for it.
#pragma once

#include <atomic>

#include "io/reactor.h"

namespace platter::io {

class Event {
 public:
  Event() = default;
  ~Event() { PLATTER_ASSERT(head_.load(std::memory_order_relaxed) == nullptr || is_set()); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  bool is_set() const { return head_.load(std::memory_order_acquire) == set_mark(); }

  void set() {
    Waiter* waiter = head_.exchange(set_mark(), std::memory_order_acq_rel);
    if (waiter == set_mark()) return;
    Waiter* oldest = nullptr;
    while (waiter != nullptr) {
      Waiter* next = waiter->next;
      waiter->next = oldest;
      oldest = waiter;
      waiter = next;
    }
    while (oldest != nullptr) {
      Waiter* next = oldest->next;
      wake(*oldest);
      oldest = next;
    }
  }

  // Not while others set it or wait for it.
  void reset() {
    PLATTER_ASSERT(head_.load(std::memory_order_relaxed) == nullptr || is_set());
    head_.store(nullptr, std::memory_order_release);
  }

  auto wait() { return Awaiter{*this, {}}; }
  auto operator co_await() { return wait(); }

 private:
  struct Awaiter {
    Event& event;
    Waiter waiter;
    bool await_ready() const noexcept { return event.is_set(); }
    bool await_suspend(std::coroutine_handle<> handle) noexcept {
      waiter = {.handle = handle, .reactor = Reactor::current()};
      Waiter* head = event.head_.load(std::memory_order_acquire);
      do {
        if (head == set_mark()) return false;
        waiter.next = head;
      } while (!event.head_.compare_exchange_weak(head, &waiter, std::memory_order_acq_rel,
                                                  std::memory_order_acquire));
      return true;
    }
    void await_resume() const noexcept {}
  };

  static inline Waiter mark_;
  static Waiter* set_mark() { return &mark_; }

  std::atomic<Waiter*> head_{nullptr};  // null: unset, nobody waits; the mark: set; else who waits
};

}  // namespace platter::io
