// Gate: keeps new work out of a thing that is going away, and tells when the work inside has ended.
//
//   auto pass = gate.try_enter();      // in a request: no pass, no entry
//   gate.spawn(reactor, task);         // a task that the gate owns
//   co_await gate.close();             // nobody new; resumes when the last one has left
//
// Any thread may enter and leave. The gate may be destroyed once close() has returned, and must not
// be before, if it was ever entered (asserted).
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

#include "io/event.h"
#include "io/reactor.h"
#include "io/task.h"

namespace platter::io {

class Gate {
 public:
  class [[nodiscard]] Pass {
   public:
    Pass() = default;
    Pass(Pass&& other) noexcept : gate_(std::exchange(other.gate_, nullptr)) {}
    Pass& operator=(Pass&& other) noexcept {
      if (this != &other) {
        leave();
        gate_ = std::exchange(other.gate_, nullptr);
      }
      return *this;
    }
    ~Pass() { leave(); }
    explicit operator bool() const { return gate_ != nullptr; }
    void leave() {
      if (Gate* gate = std::exchange(gate_, nullptr)) gate->leave();
    }

   private:
    friend class Gate;
    explicit Pass(Gate* gate) : gate_(gate) {}
    Gate* gate_ = nullptr;
  };

  Gate() = default;
  ~Gate() { PLATTER_ASSERT(state_.load(std::memory_order_acquire) < kOne); }
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;

  // An empty pass if the gate is closed.
  Pass try_enter() {
    uint64_t state = state_.load(std::memory_order_relaxed);
    do {
      if (state & kClosed) return {};
    } while (!state_.compare_exchange_weak(state, state + kOne, std::memory_order_acquire,
                                           std::memory_order_relaxed));
    return Pass(this);
  }

  bool is_closed() const { return state_.load(std::memory_order_relaxed) & kClosed; }
  uint64_t inside() const { return state_.load(std::memory_order_relaxed) / kOne; }

  // May be called more than once; every call waits.
  Task<void> close() {
    uint64_t before = state_.fetch_or(kClosed, std::memory_order_acq_rel);
    if (before == 0) empty_.set();
    co_await empty_.wait();
  }

  // Starts `task` on `reactor`; close() waits for its end. The gate is open (asserted).
  void spawn(Reactor& reactor, Task<void> task) {
    Pass pass = try_enter();
    PLATTER_ASSERT(pass);
    run(std::move(task), std::move(pass)).start_on(reactor);
  }

 private:
  static constexpr uint64_t kClosed = 1;
  static constexpr uint64_t kOne = 2;

  void leave() {
    // The last one out of a closed gate, and only that one, sees exactly this.
    if (state_.fetch_sub(kOne, std::memory_order_acq_rel) == (kOne | kClosed)) empty_.set();
  }

  static SelfOwned run(Task<void> task, Pass pass) {
    {
      Task<void> own = std::move(task);
      co_await std::move(own);
    }
    pass.leave();
  }

  std::atomic<uint64_t> state_{0};
  Event empty_;
};

}  // namespace platter::io
