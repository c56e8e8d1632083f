// WriteTracker: keeps overlapping writes of a node apart where one of them is serialising.
//
// A padded write reads the blocks at its edges, changes them in memory and writes them back; a
// write by someone else in between would be lost. Such a write is serialising: it waits for earlier
// overlapping writes, and later overlapping ones wait for it. Serialising writes are rare, so the
// scheme is biased: while there is none, an ordinary write only counts itself in its reactor's
// slot; a serialising one announces itself, waits until the ordinary ones in flight have ended, and
// from then on everyone goes through the list.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>

#include "block/wait_until.h"
#include "io/reactor.h"
#include "io/task.h"

namespace platter::block {

class WriteTracker {
 public:
  // A write in the list; lives in its request's frame.
  struct Write {
    uint64_t begin;
    uint64_t end;
    bool serialising;
    Write* previous = nullptr;  // earlier
    Write* next = nullptr;
    io::WaiterList waiting;  // for this one to end
  };

  // False: a serialising write is about; use enter().
  bool try_enter_ordinary(unsigned slot) {
    ordinary_[slot].count.fetch_add(1, std::memory_order_seq_cst);
    if (serialising_.load(std::memory_order_seq_cst) == 0) [[likely]]
      return true;
    leave_ordinary(slot);
    return false;
  }
  void leave_ordinary(unsigned slot) {
    ordinary_[slot].count.fetch_sub(1, std::memory_order_seq_cst);
    if (serialising_.load(std::memory_order_seq_cst) != 0) [[unlikely]]
      notify();
  }

  // Resumes when no earlier overlapping write, of which one is serialising, is left.
  io::Task<void> enter(Write& write);
  void leave(Write& write);

 private:
  struct WaitForConflict;
  struct alignas(128) Slot {
    std::atomic<uint32_t> count{0};
  };
  void notify();
  bool no_ordinary() const;
  Write* conflict(const Write& write) const;

  std::array<Slot, io::kMaxReactors> ordinary_;
  alignas(128) std::atomic<uint32_t> serialising_{0};
  std::mutex mutex_;
  io::WaiterList quiet_;  // for ordinary writes to end
  Write* last_ = nullptr;
};

}  // namespace platter::block
