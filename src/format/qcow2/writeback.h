// WriteBack: rounds that carry dirty metadata to the disk, in the order of order.h.
//
// A round copies what is dirty under the allocation mutex and writes the copies with no lock that a
// request might need: requests go on meanwhile, and what they change belongs to the next round.
// Rounds do not overlap. Callers that come while a round runs share the next one (group commit).
#pragma once

#include <cstdint>
#include <vector>

#include "format/qcow2/free_queue.h"
#include "format/qcow2/image.h"
#include "format/qcow2/mapping.h"
#include "format/qcow2/refcounts.h"

namespace platter::format::qcow2 {

class WriteBack {
 public:
  WriteBack(Image& image, Mapping& mapping, Refcounts& refcounts, FreeQueue& frees)
      : image_(image), mapping_(mapping), refcounts_(refcounts), frees_(frees) {}

  // With lazy refcounts the dirty bit stands for them: refcount blocks stay in memory while there
  // is room.
  void set_lazy_refcounts(bool lazy) { lazy_ = lazy; }

  // Everything that changed before the call is durable after it, guest data included.
  io::Task<Result<void>> flush();
  // The same for lazy refcounts too.
  io::Task<Result<void>> flush_all();
  // Whether every change so far is durable.
  bool is_settled() const {
    return settled_.load(std::memory_order_acquire) ==
           image_.changes.load(std::memory_order_acquire);
  }
  // Whether a cache wants a round before more is changed.
  bool under_pressure() const {
    return mapping_.cache().under_pressure() || refcounts_.cache().under_pressure();
  }

 private:
  struct Round;
  io::Task<Result<void>> run_round(bool all);
  void stage(Round& round, bool all);
  io::Task<Result<void>> check_overlaps(const Round& round);
  io::Task<Result<void>> write_steps(Round& round);
  std::vector<block::DebugEvent> events_of(const Round& round, WriteStep step) const;
  io::Task<Result<void>> write_step(Round& round, WriteStep step);
  void settle(Round& round, bool durable);

  Image& image_;
  Mapping& mapping_;
  Refcounts& refcounts_;
  FreeQueue& frees_;
  io::AsyncMutex rounds_;
  bool lazy_ = false;
  std::atomic<uint64_t> rounds_begun_ = 0;
  std::atomic<uint64_t> last_good_round_ = 0;  // its number, from 1
  std::atomic<uint64_t> settled_ = 0;          // Image::changes when that round began
};

}  // namespace platter::format::qcow2
