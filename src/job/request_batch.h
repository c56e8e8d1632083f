// RequestBatch: requests that one task starts at once and awaits together.
//
// start() runs a request as far as it gets without waiting, so that the order of the calls is the
// order in which the target sees them. The batch owns what it started: finish() returns when all
// have ended. All of it happens on the reactor of the task that owns the batch.
#pragma once

#include <coroutine>
#include <cstdint>
#include <exception>
#include <optional>
#include <utility>

#include "base/assert.h"
#include "io/frame_pool.h"
#include "io/reactor.h"
#include "io/task.h"
#include "platter/error.h"

namespace platter::job {

// The first request of a batch that failed, in the order in which they ended.
struct RequestFailure {
  uint64_t offset;
  Error error;
};

class RequestBatch {
 public:
  // More requests than this are not worth having in flight for one chunk.
  static constexpr unsigned kMaxRequests = 64;

  RequestBatch() = default;
  RequestBatch(const RequestBatch&) = delete;
  RequestBatch& operator=(const RequestBatch&) = delete;
  ~RequestBatch() { PLATTER_ASSERT(in_flight_ == 0); }

  bool full() const { return in_flight_ == kMaxRequests; }

  // `offset` is what a failure is reported with.
  void start(uint64_t offset, io::Task<Result<void>> request) {
    PLATTER_ASSERT(!full());
    ++in_flight_;
    run(*this, offset, std::move(request));
  }

  // co_await batch.finish(): resumes when every request that was started has ended.
  auto finish() { return Awaiter{*this}; }

  std::optional<RequestFailure>& failure() { return failure_; }

 private:
  // Starts by itself and frees its own frame when it ends; the batch counts it.
  struct Running {
    struct promise_type {
      static void* operator new(size_t size) { return io::allocate_frame(size); }
      static void operator delete(void* frame, size_t size) noexcept {
        io::free_frame(frame, size);
      }
      Running get_return_object() noexcept { return {}; }
      std::suspend_never initial_suspend() noexcept { return {}; }
      std::suspend_never final_suspend() noexcept { return {}; }
      void return_void() noexcept {}
      [[noreturn]] void unhandled_exception() noexcept { std::terminate(); }
    };
  };
  static Running run(RequestBatch& batch, uint64_t offset, io::Task<Result<void>> request) {
    Result<void> result = co_await std::move(request);
    if (!result && !batch.failure_) {
      batch.failure_.emplace(offset, std::move(result).error());
    }
    if (--batch.in_flight_ == 0 && batch.waiting_) {
      io::Reactor::current()->resume_later(std::exchange(batch.waiting_, nullptr));
    }
  }

  struct Awaiter {
    RequestBatch& batch;
    bool await_ready() const noexcept { return batch.in_flight_ == 0; }
    void await_suspend(std::coroutine_handle<> handle) noexcept { batch.waiting_ = handle; }
    void await_resume() const noexcept {}
  };

  unsigned in_flight_ = 0;
  std::coroutine_handle<> waiting_;
  std::optional<RequestFailure> failure_;
};

}  // namespace platter::job
