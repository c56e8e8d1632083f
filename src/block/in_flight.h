// InFlight: how many requests a backend has in flight, kept so that a request touches no line that
// another reactor writes, and so that two questions can be answered when they are asked: "is it
// empty now?" (drain) and "have those that were there when I asked ended?" (a grace period).
//
// Each reactor has two counts, one a phase. A request counts itself in the current phase. A grace
// period flips the phase and waits until the old phase's counts are zero: newcomers are in the
// other one. A request looks at the phase again after it has counted itself, so that none hides in
// a phase that has been waited for.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>

#include "block/wait_until.h"
#include "io/reactor.h"
#include "io/sync.h"
#include "io/task.h"

namespace platter::block {

class InFlight {
 public:
  struct Ticket {
    unsigned slot = 0;
    uint32_t phase = 0;
  };

  // Fails while stopped; then wait_entry() and try again.
  bool try_enter(Ticket& ticket) {
    ticket.slot = reactor_slot();
    Slot& slot = slots_[ticket.slot];
    for (;;) {
      ticket.phase = phase_.load(std::memory_order_seq_cst);
      slot.counts[ticket.phase].fetch_add(1, std::memory_order_seq_cst);
      if (stops_.load(std::memory_order_seq_cst) != 0) [[unlikely]] {
        leave(ticket);
        return false;
      }
      if (phase_.load(std::memory_order_seq_cst) == ticket.phase) [[likely]]
        return true;
      leave(ticket);
    }
  }
  void leave(Ticket ticket) {
    const uint32_t before =
        slots_[ticket.slot].counts[ticket.phase].fetch_sub(1, std::memory_order_seq_cst);
    if (before == 1 && watchers_.load(std::memory_order_seq_cst) != 0) [[unlikely]]
      notify();
  }
  // Resumes when it is not, or no longer, stopped.
  io::Task<void> wait_entry();

  // Keeps new requests out. Nests.
  void stop();
  void start();
  // Resumes when nothing is in flight. Only meaningful while stopped.
  io::Task<void> empty();
  // Resumes when every request that was in flight when it was called has ended.
  io::Task<void> grace();

 private:
  struct alignas(128) Slot {
    std::array<std::atomic<uint32_t>, 2> counts{};
  };
  void notify();
  bool is_zero(uint32_t phase) const;

  std::array<Slot, io::kMaxReactors> slots_;
  alignas(128) std::atomic<uint32_t> phase_{0};
  std::atomic<uint32_t> stops_{0};
  std::atomic<uint32_t> watchers_{0};
  alignas(128) std::mutex mutex_;
  io::WaiterList changed_;  // counts that have become zero
  io::WaiterList started_;
  io::AsyncMutex grace_;
};

}  // namespace platter::block
