// RequestTimes: where the time of one request goes, added up as it passes through the layers.
//
// Whoever wants to know has an object of it, and says so in the coroutine at the request's root
// (measure_here). The coroutines that it awaits inherit the object, through waits of any kind and
// when_all, so that each piece of I/O finds the request that it is for. Nothing is measured where
// there is none, at the price of a copied pointer for each coroutine.
//
// A request stays on one reactor.
#pragma once

#include <chrono>
#include <coroutine>

#include "io/task.h"

namespace platter::io {

struct RequestTimes {
  using Nanoseconds = std::chrono::nanoseconds;

  Nanoseconds in_files{};  // while at least one operation of its was under way
  Nanoseconds waiting{};   // to be let in, where requests are kept out for a while

  // ---- For what does I/O
  void file_begins(Nanoseconds now) {
    if (under_way_++ == 0) since_ = now;
  }
  void file_ends(Nanoseconds now) {
    if (--under_way_ == 0) in_files += now - since_;
  }

 private:
  unsigned under_way_ = 0;
  Nanoseconds since_{};
};

namespace detail {

struct TimesSetter {
  RequestTimes* times;
  bool await_ready() const noexcept { return false; }
  template <typename Promise>
  bool await_suspend(std::coroutine_handle<Promise> handle) const noexcept {
    handle.promise().times = times;
    return false;
  }
  void await_resume() const noexcept {}
};

struct TimesGetter {
  RequestTimes* times = nullptr;
  bool await_ready() const noexcept { return false; }
  template <typename Promise>
  bool await_suspend(std::coroutine_handle<Promise> handle) noexcept {
    times = handle.promise().times;
    return false;
  }
  RequestTimes* await_resume() const noexcept { return times; }
};

}  // namespace detail

// co_await measure_here(times): for this coroutine and those that it awaits from now on. `times`
// outlives them.
inline detail::TimesSetter measure_here(RequestTimes& times) { return {&times}; }
// co_await request_times(): those of the request that this coroutine is for; null: none are taken.
inline detail::TimesGetter request_times() { return {}; }

}  // namespace platter::io
