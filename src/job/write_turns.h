// WriteTurns: chunks that are read in any order on any reactor start their writes in the order of
// their sequence numbers. Writes of different chunks may still overlap in time: a turn ends when a
// chunk's writes have been started. That is what gives a growing image the layout of a sequential
// writer.
#pragma once

#include <array>
#include <coroutine>
#include <cstdint>
#include <mutex>

#include "base/assert.h"
#include "io/reactor.h"

namespace platter::job {

class WriteTurns {
 public:
  // At most this many sequence numbers may be handed out and not yet be done.
  static constexpr uint64_t kMaxAhead = 256;

  // co_await turns.wait(sequence): resumes when every earlier sequence number is done.
  auto wait(uint64_t sequence) { return Awaiter{*this, sequence, {}}; }

  // Ends the turn of the sequence number whose turn it is. Every number that was handed out must
  // come here, whatever became of its chunk.
  void done(uint64_t sequence) {
    io::Waiter* next = nullptr;
    {
      std::lock_guard lock(mutex_);
      PLATTER_ASSERT(sequence == turn_);
      ++turn_;
      std::swap(next, waiting_[turn_ % kMaxAhead]);
    }
    if (next != nullptr) io::wake(*next);
  }

 private:
  struct Awaiter {
    WriteTurns& turns;
    uint64_t sequence;
    io::Waiter waiter;

    bool await_ready() const noexcept { return false; }
    bool await_suspend(std::coroutine_handle<> handle) {
      waiter.handle = handle;
      waiter.reactor = io::Reactor::current();
      std::lock_guard lock(turns.mutex_);
      if (turns.turn_ == sequence) return false;
      PLATTER_ASSERT(sequence > turns.turn_ && sequence - turns.turn_ < kMaxAhead);
      turns.waiting_[sequence % kMaxAhead] = &waiter;
      return true;
    }
    void await_resume() const noexcept {}
  };

  std::mutex mutex_;
  uint64_t turn_ = 0;
  std::array<io::Waiter*, kMaxAhead> waiting_{};
};

}  // namespace platter::job
