// What the parts of one open qcow2 image share.
//
// Lock order: writeback (WriteBack) before allocation (here) before `features` (here), the mutexes
// inside TableCache and FreeQueue. Data I/O happens under none of them.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/log.h"
#include "block/node.h"
#include "block/unflushed.h"
#include "format/qcow2/header.h"
#include "format/qcow2/layout.h"
#include "format/qcow2/order.h"
#include "format/qcow2/overlap_guard.h"
#include "format/qcow2/state_file.h"
#include "io/sync.h"

namespace platter::format::qcow2 {

struct Image {
  Image(block::Node& node_, block::Child& file_, const base::Log& log_, Header header_);

  block::Node* node;
  block::Child* file;
  block::Child* data;  // where guest data is: `file` itself, or the external data file
  const base::Log* log;
  Header header;  // as on disk; fields change under the allocation mutex
  Geometry geometry;
  uint64_t metadata_unit;  // L1 and refcount table are written in pieces of this many bytes

  // Guards header.incompatible. Inside every other lock.
  io::AsyncMutex features;
  // Guards every change of mappings and refcounts.
  io::AsyncMutex allocation;
  // Undurable bits (order.h) gathered since the last write-back round began. Under `allocation`.
  uint32_t undurable = 0;
  // Counts changes of metadata; a round that ends well has settled those it began with.
  std::atomic<uint64_t> changes = 0;
  std::atomic<bool> writable = false;
  std::atomic<bool> corrupt = false;
  OverlapGuard guard;

  // Guest data is in a file of its own, and that file, read as a raw image, is what the guest sees.
  bool has_raw_data_file() const { return geometry.external_data && header.has(kRawExternalData); }
  // What was written to either file is durable after it: the data first.
  io::Task<Result<void>> flush();

  // Every change is for the next flush, even one that no request asked for, or of work that failed
  // half-way.
  void changed(uint32_t undurable_bits) {
    undurable |= undurable_bits;
    changes.fetch_add(1, std::memory_order_release);
    block::note_written(*node);
  }

  // The image contradicts itself: says so, remembers it in the header (once, if it may write) and
  // returns the error. No write succeeds from here on.
  io::Task<Error> corruption(std::string message);
  Error corrupt_error() const;
  // Refuses what would be written over metadata that is not `own` (none: guest data): the image is
  // corrupt then. Under `allocation`.
  io::Task<Result<void>> check_overlap(uint64_t offset, uint64_t bytes, Structures own);
  io::Task<Result<void>> refuse_overlap(std::string_view obstacle);

  // Sets and clears incompatible feature bits, in the file first. Not flushed.
  io::Task<Result<void>> change_incompatible(uint64_t set, uint64_t clear);
  // Writes header fields, durably. If that fails and `before` cannot be put back either, which of
  // the two counts after a power cut is not known: the image is then no longer written to.
  io::Task<Result<void>> replace_header_fields(uint64_t offset, std::span<const uint8_t> before,
                                               std::span<const uint8_t> after);
  io::Task<Result<void>> write_header_u64(uint64_t offset, uint64_t value);
  // Takes over where the tables are from the header in the file, which was changed beneath.
  io::Task<Result<void>> reload_places();
  io::Task<Result<void>> write_file(uint64_t offset, std::span<const uint8_t> bytes);
};

// One write of a write-back round.
struct StagedWrite {
  uint64_t host_offset;
  size_t position;  // in the staging buffer
  size_t length;
};

// The pieces of a table that differ from the disk. A state file knows them, too.
class DirtyUnits {
 public:
  void reset(uint64_t table_bytes, uint64_t unit_bytes);
  // After the change.
  void mark(uint64_t byte_offset);
  bool empty() const { return units_.empty(); }
  // Sorted; the set is empty afterwards.
  std::vector<uint32_t> take();
  // What was taken of the table that is at `table_offset` has been written, or not: then it is
  // dirty again. A table that has moved since was written whole.
  void end_write(uint64_t table_offset, std::span<const StagedWrite> writes,
                 std::span<const uint8_t> staging, bool written);
  uint64_t unit_bytes() const { return unit_bytes_; }

  // `content` gives the table's entries as they are in memory.
  void keep_in(TableState& state, TableState::Content content);
  // Nothing is dirty.
  void leave_state() { state_ = nullptr; }
  // After reset(): the whole table is on disk at `table_offset`.
  void table_is_at(uint64_t table_offset, const base::Log& log);

 private:
  uint64_t unit_bytes_ = 512;
  std::vector<bool> marked_;
  std::vector<uint32_t> units_;
  TableState* state_ = nullptr;
  TableState::Content content_;
};

}  // namespace platter::format::qcow2
