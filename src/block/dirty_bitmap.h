// DirtyBitmap: which parts of a disk were written to. One bit stands for `granularity` bytes.
//
// A bitmap that a node records in (Node::record_in) has each write, zero and discard marked when
// the request has ended, whether it succeeded or not, and before it counts as ended for a drain.
// Not before it: a job that clears a bit and then reads would miss what arrives between the two. So
// whoever clears a bit first and reads the disk then has either read what was written, or finds
// the bit set again; and a drained section sees the mark of every write that reached the disk.
//
// mark() and the questions may be called from any thread at any time; clear() beside them, by one
// caller at a time. Everything else is called while no request is in flight on the node.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "block/bit_tree.h"
#include "platter/error.h"

namespace platter::block {

class DirtyBitmap {
 public:
  static constexpr uint64_t kMinGranularity = 512;
  static constexpr uint64_t kMaxGranularity = uint64_t{1} << 31;
  static constexpr uint64_t kMaxBits = uint64_t{1} << 32;  // 512 MiB of them

  // Nothing is dirty. EINVAL: no such granularity. EFBIG: more than kMaxBits.
  static Result<std::shared_ptr<DirtyBitmap>> create(std::string name, uint64_t size,
                                                     uint64_t granularity);
  // What is kept of a disk's changes where nobody says how finely: its clusters, within reason.
  static uint64_t default_granularity(uint64_t cluster_size);

  const std::string& name() const { return name_; }
  uint64_t size() const { return size_; }  // of the disk, in bytes
  uint64_t granularity() const { return uint64_t{1} << shift_; }
  uint64_t bits() const { return bits_.size(); }

  // Bytes [offset, offset + length); what lies beyond the disk's end is ignored.
  void mark(uint64_t offset, uint64_t length) {
    if (offset >= size_ || length == 0) return;
    mark_bits(offset, length < size_ - offset ? length : size_ - offset);
  }
  // Of bits that the range covers wholly; the last one of the disk is, where the range reaches its
  // end.
  void clear(uint64_t offset, uint64_t length);

  bool is_dirty(uint64_t offset) const { return bits_.get(offset >> shift_); }
  uint64_t count() const { return bits_.count(); }  // of bits
  struct Range {
    uint64_t offset;
    uint64_t length;
    bool operator==(const Range&) const = default;
  };
  // The first dirty run at `offset` or behind it, cut at the disk's end.
  std::optional<Range> next_dirty(uint64_t offset) const;

  // ---- Nobody marks meanwhile

  void clear_all();
  // Marks what `source`, of any granularity, has dirty. EINVAL: it is of a disk of another size.
  Result<void> merge(const DirtyBitmap& source);
  // What is new is clean. EFBIG: more than kMaxBits.
  Result<void> resize(uint64_t size);
  Result<void> check_size(uint64_t size) const;

  // A job's turn: what is dirty now stays as it is, later marks are kept apart. It ends with
  // abdicate() (the job has dealt with what was frozen: only what was marked since is left) or with
  // reclaim() (it has not: both are).
  Result<void> freeze();
  void abdicate();
  void reclaim();
  bool frozen() const { return successor_ != nullptr; }

  // ---- For who stores it

  // Whether a bit may differ from what was stored last.
  bool changed() const { return changed_.load(std::memory_order_relaxed); }
  void set_changed(bool changed) { changed_.store(changed, std::memory_order_relaxed); }
  BitTree& tree() { return bits_; }
  const BitTree& tree() const { return bits_; }

 private:
  DirtyBitmap(std::string name, uint64_t size, unsigned shift, BitTree bits);
  void mark_bits(uint64_t offset, uint64_t length);

  const std::string name_;
  uint64_t size_;
  const unsigned shift_;
  BitTree bits_;
  std::unique_ptr<BitTree> successor_;
  BitTree* marked_;  // where marks go
  std::atomic<bool> changed_ = false;
};

}  // namespace platter::block
