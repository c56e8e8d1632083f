// Waiting for descriptors that are no files: sockets, events, pipes.
//
//   Descriptor socket(fd);                                // owns it
//   DescriptorWait wait(socket.get());
//   if (!co_await wait.readable()) co_return ...;         // cancelled, or an error
//
// A wait belongs to one reactor: all calls but the constructor are made there. One task waits at a
// time.
#pragma once

#include <unistd.h>

#include <cerrno>
#include <coroutine>
#include <utility>

#include "base/assert.h"
#include "io/reactor.h"
#include "platter/error.h"

namespace platter::io {

// An open descriptor and its owner. Not thread-safe.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int descriptor) : descriptor_(descriptor) {}
  Descriptor(Descriptor&& other) noexcept : descriptor_(other.release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    if (this != &other) reset(other.release());
    return *this;
  }
  ~Descriptor() { reset(); }

  int get() const { return descriptor_; }
  explicit operator bool() const { return descriptor_ >= 0; }
  int release() { return std::exchange(descriptor_, -1); }
  void reset(int descriptor = -1) {
    if (descriptor_ >= 0) ::close(descriptor_);
    descriptor_ = descriptor;
  }

 private:
  int descriptor_ = -1;
};

class DescriptorWait {
 public:
  explicit DescriptorWait(int descriptor) { request_.descriptor = descriptor; }
  ~DescriptorWait() { PLATTER_ASSERT(!waiting_); }
  DescriptorWait(const DescriptorWait&) = delete;
  DescriptorWait& operator=(const DescriptorWait&) = delete;

  // Until a read (a write) would not block, be it that it would fail. ECANCELED: cancel() was
  // called.
  auto readable() { return Awaiter{*this, false}; }
  auto writable() { return Awaiter{*this, true}; }

  // Ends the wait that is on, and all that would begin.
  void cancel() {
    if (std::exchange(cancelled_, true) || !waiting_) return;
    request_.waiter.reactor->engine().cancel(request_);
  }
  bool is_cancelled() const { return cancelled_; }

 private:
  struct Awaiter {
    DescriptorWait& wait;
    bool for_writing;
    bool await_ready() const noexcept { return wait.cancelled_; }
    void await_suspend(std::coroutine_handle<> handle) {
      PLATTER_ASSERT(!wait.waiting_);
      Reactor& reactor = *Reactor::current();
      wait.waiting_ = true;
      wait.request_.for_writing = for_writing;
      wait.request_.result = 0;
      wait.request_.waiter = {.handle = handle, .reactor = &reactor};
      reactor.engine().submit(wait.request_);
    }
    Result<void> await_resume() {
      wait.waiting_ = false;
      const int code = wait.cancelled_ ? ECANCELED : wait.request_.result;
      if (code != 0) return std::unexpected(Error::from_errno(code));
      return {};
    }
  };

  ReadinessRequest request_;
  bool waiting_ = false;
  bool cancelled_ = false;
};

}  // namespace platter::io
