// Task<T>: a lazy coroutine that is awaited exactly once, on the reactor that awaits it.
//
// It starts when awaited and hands control to its awaiter when it ends, by symmetric transfer: no
// stack is used however long a chain of tasks is. The run of transfers between two turns of the
// reactor's loop is bounded (kMaxTransfers); past it the continuation goes through the ready
// queue, so that one long chain neither starves its neighbours nor depends on the compiler for
// its stack.
//
// A Task that was made with a value (Task<T>::ready) has no frame at all: drivers use it
// to answer, or to pass a child's task through, without a coroutine of their own.
//
// Lifetime: destroying a Task that has not been started, or has ended, frees its frame. Destroying
// one that is suspended half-way is a bug. Parameters of a coroutine are copied into the frame:
// take them by value, or take references only to what outlives the await.
//
// Exceptions are for bugs: one that leaves a coroutine ends the process.
#pragma once

#include <coroutine>
#include <exception>
#include <optional>
#include <type_traits>
#include <utility>

#include "base/assert.h"
#include "io/frame_pool.h"

namespace platter::io {

struct RequestTimes;  // io/request_times.h

inline constexpr int kMaxTransfers = 256;

namespace detail {

// Counts down from kMaxTransfers; the reactor's loop resets it before it resumes a ready task.
extern constinit thread_local int transfers_left;

// Puts `next` into the current reactor's ready queue and returns the no-op coroutine; without a
// current reactor returns `next`.
std::coroutine_handle<> defer_transfer(std::coroutine_handle<> next) noexcept;

inline std::coroutine_handle<> bounded_transfer(std::coroutine_handle<> next) noexcept {
  if (--transfers_left > 0) [[likely]]
    return next;
  return defer_transfer(next);
}

// Of the coroutine that a promise belongs to; null where it has none.
template <typename Promise>
RequestTimes* times_of(const Promise& promise) noexcept {
  if constexpr (requires { promise.times; }) {
    return promise.times;
  } else {
    return nullptr;
  }
}

struct PromiseBase {
  std::coroutine_handle<> continuation;
  RequestTimes* times = nullptr;  // of the request that it is for, if they are taken

  static void* operator new(size_t size) { return allocate_frame(size); }
  static void operator delete(void* frame, size_t size) noexcept { free_frame(frame, size); }

  std::suspend_always initial_suspend() noexcept { return {}; }
  struct FinalAwaiter {
    bool await_ready() noexcept { return false; }
    template <typename Promise>
    std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> self) noexcept {
      return bounded_transfer(self.promise().continuation);
    }
    void await_resume() noexcept {}
  };
  FinalAwaiter final_suspend() noexcept { return {}; }
  [[noreturn]] void unhandled_exception() noexcept { std::terminate(); }
};

template <typename T>
struct Promise : PromiseBase {
  std::optional<T> value;
  std::coroutine_handle<Promise> get_return_object() noexcept {
    return std::coroutine_handle<Promise>::from_promise(*this);
  }
  template <typename U>
  void return_value(U&& result) {
    value.emplace(std::forward<U>(result));
  }
  T take() { return std::move(*value); }
};

template <>
struct Promise<void> : PromiseBase {
  std::coroutine_handle<Promise> get_return_object() noexcept {
    return std::coroutine_handle<Promise>::from_promise(*this);
  }
  void return_void() noexcept {}
  void take() noexcept {}
};

struct Nothing {};

}  // namespace detail

template <typename T = void>
class [[nodiscard]] Task {
 public:
  using promise_type = detail::Promise<T>;
  using value_type = T;
  using Handle = std::coroutine_handle<promise_type>;
  using Stored = std::conditional_t<std::is_void_v<T>, detail::Nothing, T>;

  Task(Handle handle) noexcept : handle_(handle) {}  // what a coroutine returns
  static Task ready(Stored value = {}) { return Task(ReadyTag{}, std::move(value)); }

  Task(Task&& other) noexcept
      : handle_(std::exchange(other.handle_, nullptr)), value_(std::move(other.value_)) {}
  Task& operator=(Task&& other) noexcept {
    if (this != &other) {
      destroy();
      handle_ = std::exchange(other.handle_, nullptr);
      value_ = std::move(other.value_);
    }
    return *this;
  }
  ~Task() { destroy(); }

  struct Awaiter {
    Task& task;
    bool await_ready() const noexcept { return !task.handle_; }
    template <typename Promise>
    std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> awaiting) noexcept {
      PLATTER_ASSERT(!task.started_);
      task.started_ = true;
      task.handle_.promise().continuation = awaiting;
      task.handle_.promise().times = detail::times_of(awaiting.promise());
      return task.handle_;
    }
    T await_resume() {
      if (task.handle_) return task.handle_.promise().take();
      if constexpr (!std::is_void_v<T>) return std::move(*task.value_);
    }
  };
  Awaiter operator co_await() && noexcept { return Awaiter{*this}; }

 private:
  struct ReadyTag {};
  Task(ReadyTag, Stored value) : value_(std::move(value)) {}

  void destroy() noexcept {
    if (!handle_) return;
    PLATTER_ASSERT(!started_ || handle_.done());
    handle_.destroy();
    handle_ = nullptr;
  }

  Handle handle_ = nullptr;
  bool started_ = false;
  std::optional<Stored> value_;
};

}  // namespace platter::io
