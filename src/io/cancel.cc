#include "io/cancel.h"

namespace platter::io {

void CancelSource::cancel() {
  WaiterList waiters;
  {
    std::lock_guard guard(guard_);
    if (cancelled_.exchange(true, std::memory_order_acq_rel)) return;
    waiters = std::exchange(waiters_, {});
    // Posted under the guard: a waiter that withdraws sees that it is too late.
    waiters.wake_all();
  }
}

bool CancelSource::enqueue(Waiter& waiter) {
  std::lock_guard guard(guard_);
  if (cancelled_.load(std::memory_order_relaxed)) return false;
  waiters_.push_back(waiter);
  return true;
}

bool CancelSource::withdraw(Waiter& waiter) {
  std::lock_guard guard(guard_);
  if (cancelled_.load(std::memory_order_relaxed)) return false;
  waiters_.remove(waiter);
  return true;
}

namespace {

// Two tasks that end each other: one waits for the timer, one for the cancellation. Each is
// resumed exactly once, by its own cause or by the other task; they share one reactor.
struct SleepOrCancel {
  Reactor& reactor;
  CancelSource& source;
  Timer timer;
  Waiter waiter;
};

struct CancelAwaiter {
  SleepOrCancel& sleep;
  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> handle) {
    sleep.waiter = {.handle = handle, .reactor = &sleep.reactor};
    return sleep.source.enqueue(sleep.waiter);
  }
  void await_resume() const noexcept {}
};

Task<bool> timer_side(SleepOrCancel& sleep) {
  co_await detail::TimerAwaiter{sleep.reactor, sleep.timer};
  bool elapsed = sleep.source.withdraw(sleep.waiter);
  if (elapsed) sleep.reactor.resume_later(sleep.waiter.handle);
  co_return elapsed;
}

Task<bool> cancel_side(SleepOrCancel& sleep) {
  co_await CancelAwaiter{sleep};
  if (sleep.reactor.remove_timer(sleep.timer)) sleep.reactor.resume_later(sleep.timer.handle);
  co_return true;
}

}  // namespace

Task<bool> sleep_for(Nanoseconds duration, CancelToken token) {
  Reactor& reactor = *Reactor::current();
  if (token.source_ == nullptr) {
    co_await reactor.sleep_for(duration);
    co_return true;
  }
  if (token.is_cancelled()) co_return false;
  Nanoseconds start = reactor.now();
  Nanoseconds deadline = duration > kNever - start ? kNever : start + duration;
  SleepOrCancel sleep{reactor, *token.source_, {.deadline = deadline, .handle = {}}, {}};
  auto [elapsed, ended] = co_await when_all(timer_side(sleep), cancel_side(sleep));
  co_return elapsed&& ended;
}

namespace detail {

Task<bool> cancel_after(Nanoseconds limit, CancelToken watch, CancelSource& source) {
  bool elapsed = co_await sleep_for(limit, watch);
  if (elapsed) source.cancel();
  co_return elapsed;
}

}  // namespace detail

}  // namespace platter::io
