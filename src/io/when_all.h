// when_all: starts every task, on the awaiting reactor, and resumes when all have ended.
//
//   auto [a, b] = co_await when_all(read(x), read(y));
//   std::vector<Result<void>> ends = co_await when_all(std::move(tasks));
#pragma once

#include <tuple>
#include <utility>
#include <vector>

#include "io/reactor.h"
#include "io/task.h"

namespace platter::io {
namespace detail {

// Counts down on one reactor: tasks resume where they were started from.
struct AllWaiter {
  size_t left = 0;
  std::coroutine_handle<> continuation;
};

// Runs one of the tasks; when it is the last to end, resumes the awaiter.
struct AllPart {
  struct promise_type {
    AllWaiter* all = nullptr;
    RequestTimes* times = nullptr;  // as Promise has it
    static void* operator new(size_t size) { return allocate_frame(size); }
    static void operator delete(void* frame, size_t size) noexcept { free_frame(frame, size); }
    AllPart get_return_object() noexcept {
      return {std::coroutine_handle<promise_type>::from_promise(*this)};
    }
    std::suspend_always initial_suspend() noexcept { return {}; }
    struct Final {
      bool await_ready() noexcept { return false; }
      std::coroutine_handle<> await_suspend(std::coroutine_handle<promise_type> self) noexcept {
        AllWaiter& waiter = *self.promise().all;
        if (--waiter.left != 0) return std::noop_coroutine();
        return bounded_transfer(waiter.continuation);
      }
      void await_resume() noexcept {}
    };
    Final final_suspend() noexcept { return {}; }
    void return_void() noexcept {}
    [[noreturn]] void unhandled_exception() noexcept { std::terminate(); }
  };
  std::coroutine_handle<promise_type> handle;
};

struct AllParts {
  AllWaiter all;
  std::vector<AllPart>& parts;

  bool await_ready() const noexcept { return parts.empty(); }
  template <typename Promise>
  bool await_suspend(std::coroutine_handle<Promise> continuation) {
    all.continuation = continuation;
    all.left = parts.size() + 1;  // held by this call until every part has been started
    for (AllPart& part : parts) {
      part.handle.promise().all = &all;
      part.handle.promise().times = times_of(continuation.promise());
      part.handle.resume();
    }
    return --all.left != 0;
  }
  void await_resume() const noexcept {
    for (AllPart& part : parts) part.handle.destroy();
  }
};

template <typename T>
AllPart run_part(Task<T> task, std::optional<T>& value) {
  Task<T> own = std::move(task);
  value.emplace(co_await std::move(own));
}
inline AllPart run_part_void(Task<void> task) {
  Task<void> own = std::move(task);
  co_await std::move(own);
}

template <typename... T, size_t... Index>
Task<std::tuple<T...>> all_of(std::index_sequence<Index...>, Task<T>... tasks) {
  std::tuple<std::optional<T>...> values;
  std::vector<AllPart> parts;
  parts.reserve(sizeof...(T));
  (parts.push_back(run_part(std::move(tasks), std::get<Index>(values))), ...);
  co_await AllParts{{}, parts};
  co_return std::tuple<T...>(std::move(*std::get<Index>(values))...);
}

}  // namespace detail

template <typename... T>
Task<std::tuple<T...>> when_all(Task<T>... tasks) {
  return detail::all_of(std::index_sequence_for<T...>{}, std::move(tasks)...);
}

template <typename T>
Task<std::vector<T>> when_all(std::vector<Task<T>> tasks) {
  std::vector<std::optional<T>> values(tasks.size());
  std::vector<detail::AllPart> parts;
  parts.reserve(tasks.size());
  for (size_t i = 0; i < tasks.size(); ++i)
    parts.push_back(detail::run_part(std::move(tasks[i]), values[i]));
  co_await detail::AllParts{{}, parts};
  std::vector<T> results;
  results.reserve(values.size());
  for (auto& value : values) results.push_back(std::move(*value));
  co_return results;
}

inline Task<void> when_all(std::vector<Task<void>> tasks) {
  std::vector<detail::AllPart> parts;
  parts.reserve(tasks.size());
  for (Task<void>& task : tasks) parts.push_back(detail::run_part_void(std::move(task)));
  co_await detail::AllParts{{}, parts};
}

}  // namespace platter::io
