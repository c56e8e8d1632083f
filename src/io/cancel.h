// Cancellation: a request to stop, that long work looks at where it can stop cleanly.
//
//   CancelSource source;                     // with whoever may change their mind
//   copy(..., source.token());               // the work: if (auto end = token.check(); !end) ...
//   source.cancel();                         // any thread, any number of times
//
// Nothing is torn down by force: what has begun runs to its end or to its next look. The source
// outlives its tokens' use.
#pragma once

#include <atomic>
#include <cerrno>
#include <mutex>

#include "io/reactor.h"
#include "io/task.h"
#include "io/waiter_list.h"
#include "io/when_all.h"

namespace platter::io {

class CancelSource;

class CancelToken {
 public:
  CancelToken() = default;  // never cancelled
  bool is_cancelled() const;
  Result<void> check() const;  // ECANCELED

 private:
  friend class CancelSource;
  friend Task<bool> sleep_for(Nanoseconds duration, CancelToken token);
  explicit CancelToken(CancelSource* source) : source_(source) {}
  CancelSource* source_ = nullptr;
};

class CancelSource {
 public:
  CancelSource() = default;
  ~CancelSource() { PLATTER_ASSERT(waiters_.empty()); }
  CancelSource(const CancelSource&) = delete;
  CancelSource& operator=(const CancelSource&) = delete;

  CancelToken token() { return CancelToken(this); }
  bool is_cancelled() const { return cancelled_.load(std::memory_order_acquire); }
  void cancel();

  // ---- For what waits: the waiter is posted when cancel() is called.
  bool enqueue(Waiter& waiter);   // false: cancelled already
  bool withdraw(Waiter& waiter);  // false: it has been posted

 private:
  std::atomic<bool> cancelled_{false};
  std::mutex guard_;
  WaiterList waiters_;
};

inline bool CancelToken::is_cancelled() const {
  return source_ != nullptr && source_->is_cancelled();
}
inline Result<void> CancelToken::check() const {
  if (is_cancelled()) [[unlikely]]
    return std::unexpected(Error::from_errno(ECANCELED));
  return {};
}

// Sleeps on the current reactor. False: cancelled before the time was over.
Task<bool> sleep_for(Nanoseconds duration, CancelToken token);

namespace detail {

template <typename T>
Task<Result<T>> run_then_cancel(Task<Result<T>> task, CancelSource& watch) {
  Result<T> result = co_await std::move(task);
  watch.cancel();
  co_return result;
}
Task<bool> cancel_after(Nanoseconds limit, CancelToken watch, CancelSource& source);

}  // namespace detail

// Runs `task`, and asks `source` to cancel it when `limit` has passed. Resumes when the task has
// ended, which is the task's own doing; an error then is ETIMEDOUT, a value is still a value.
template <typename T>
Task<Result<T>> with_timeout(Nanoseconds limit, Task<Result<T>> task, CancelSource& source) {
  CancelSource watch;
  auto [result, timed_out] = co_await when_all(detail::run_then_cancel(std::move(task), watch),
                                               detail::cancel_after(limit, watch.token(), source));
  if (!result && timed_out) co_return std::unexpected(Error::from_errno(ETIMEDOUT));
  co_return std::move(result);
}

}  // namespace platter::io
