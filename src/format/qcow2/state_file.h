// StateFile: what an open image has changed and not yet written, in a file of shared memory that
// outlives the process.
//
// A write that is acknowledged, and not flushed, may be lost with the power and not with the
// process: whoever asked for it goes on, and takes it for done. Its data is in the file; the tables
// that show it are in caches. With a state file those caches lie in a mapping of it, each slice
// with a word that says what it is and whether the disk lacks it. A process that dies leaves them
// behind as they were between two of its instructions; who opens the image next with the same state
// file writes them back, in the order of order.h (state_recovery.h), and begins anew.
//
// What is left behind counts for the same image only (its file's identity), until the machine's
// next start (the boot's id), and where the disk holds beneath each changed piece what it held when
// the piece was changed (checksums): an image that somebody else has written to since is left as it
// is. After a power cut nothing of it counts.
//
// The file belongs to its user alone, and is locked while it is in use. It should lie in memory
// (tmpfs); elsewhere the kernel writes it to a medium from time to time, for nothing.
//
// Threads: TableState and SliceState are used under the locks of what they belong to.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "io/descriptor.h"
#include "platter/error.h"

namespace platter::format::qcow2 {

// Of a piece: whether the disk lacks what it holds. Both: it was changed while it was written.
enum PieceState : uint64_t {
  kPieceDirty = uint64_t{1} << 63,
  kPieceWriting = uint64_t{1} << 62,
};

// The slices of one cache: their words, and what they are.
class SliceState {
 public:
  // As it lies in the file.
  struct Entry {
    std::atomic<uint64_t> word;      // key + 1, PieceState; 0: nothing
    std::atomic<uint64_t> checksum;  // of the slice on disk, but while it is written
  };
  static constexpr uint64_t kKeyMask = (uint64_t{1} << 62) - 1;

  SliceState(int descriptor, uint64_t words_offset, Entry* entries, uint64_t* words, size_t slots,
             size_t slice_bytes)
      : descriptor_(descriptor),
        words_offset_(words_offset),
        entries_(entries),
        words_(words),
        slots_(slots),
        slice_bytes_(slice_bytes) {}

  uint64_t* words(size_t slot) const { return words_ + slot * (slice_bytes_ / 8); }
  size_t slots() const { return slots_; }
  // Has memory for the slot. ENOSPC.
  Result<void> back(size_t slot);
  // Lets go of the memory of slots that hold nothing.
  bool give_back(size_t first, size_t end);

  void forget(size_t slot) { entries_[slot].word.store(0, std::memory_order_release); }
  // The words are there, as on disk.
  void hold(size_t slot, uint64_t key, std::span<const uint8_t> on_disk);
  void set_dirty(size_t slot);
  void begin_write(size_t slot);
  // `on_disk`: of what was written, if it was.
  void end_write(size_t slot, bool written, uint64_t on_disk);

 private:
  const int descriptor_;
  const uint64_t words_offset_;
  Entry* const entries_;
  uint64_t* const words_;
  const size_t slots_;
  const size_t slice_bytes_;
};

// The L1 or the refcount table: the pieces that the disk lacks.
class TableState {
 public:
  struct Place {
    std::atomic<uint64_t> host_offset;
    std::atomic<uint64_t> units;
  };
  struct Unit {
    std::atomic<uint64_t> state;  // PieceState
    std::atomic<uint64_t> checksum;
  };
  // Gives the words of a unit as they stand in memory, in the machine's order.
  using Content = std::function<uint64_t(uint64_t index)>;

  TableState(int descriptor, uint64_t words_offset, std::atomic<uint64_t>& incomplete, Place& place,
             Unit* units, uint64_t* words, uint64_t capacity, uint64_t unit_bytes)
      : descriptor_(descriptor),
        words_offset_(words_offset),
        incomplete_(incomplete),
        place_(place),
        units_(units),
        words_(words),
        capacity_(capacity),
        unit_bytes_(unit_bytes) {}

  // The table is on disk at `host_offset`, all of it, as `content` gives it. ENOSPC: there is no
  // memory for it; the file is of no use from here on.
  Result<void> moved(uint64_t host_offset, uint64_t units, const Content& content);
  // A unit past the table's end belongs to one that is being made: it is on disk before it counts.
  void mark(uint64_t unit, const Content& content);
  void begin_write(uint64_t unit);
  void end_write(uint64_t unit, bool written, const uint8_t* bytes);

 private:
  const int descriptor_;
  const uint64_t words_offset_;
  std::atomic<uint64_t>& incomplete_;
  Place& place_;
  Unit* const units_;
  uint64_t* const words_;
  const uint64_t capacity_;
  const uint64_t unit_bytes_;
};

// What distinguishes an image: what is left behind of another one is of no use.
struct ImageIdentity {
  std::string file;  // of its file; it changes when another file takes its name
  uint64_t cluster_bits = 0;
  uint64_t refcount_order = 0;
  uint64_t l2_entry_bytes = 0;
};

// A slice or a unit of a table that a dead process left behind.
struct LeftPiece {
  uint64_t number = 0;         // the slice's key, or the unit's
  bool was_written = false;    // it may have reached the disk in part
  uint64_t checksum = 0;       // of what is beneath
  std::vector<uint8_t> bytes;  // as for the disk
};

struct LeftTable {
  uint64_t host_offset = 0;
  uint64_t unit_bytes = 0;
  std::vector<LeftPiece> units;
};

struct LeftState {
  uint64_t refcount_slice_bytes = 0;
  uint64_t l2_slice_bytes = 0;
  std::vector<LeftPiece> refcount_slices, l2_slices;
  LeftTable refcount_table, l1;

  bool empty() const {
    return refcount_slices.empty() && l2_slices.empty() && refcount_table.units.empty() &&
           l1.units.empty();
  }
};

class StateFile {
 public:
  struct Layout {
    uint64_t refcount_slots = 0, refcount_slice_bytes = 0;
    uint64_t l2_slots = 0, l2_slice_bytes = 0;
    uint64_t unit_bytes = 0;
  };
  // What became of what an earlier process left.
  enum class Left : uint8_t {
    kNothing,  // there is none, or it was closed in order
    kState,
    kOfOtherBoot,
    kOfOtherImage,
    kUnreadable,
  };

  // Opens the file, or makes it. EBUSY: another process uses it. EPERM: it is not this user's.
  static Result<std::unique_ptr<StateFile>> open(const std::string& path,
                                                 const ImageIdentity& image);
  ~StateFile();
  StateFile(const StateFile&) = delete;
  StateFile& operator=(const StateFile&) = delete;

  const std::string& path() const { return path_; }
  Left left() const { return left_; }
  const LeftState& left_state() const { return left_state_; }

  // What was left is about to be written to the disk, where its checksums will not be found any
  // more; and: it is there, and is nothing any more. Who does so may die, too.
  Result<void> begin_write_back();
  Result<void> end_write_back();
  // Begins anew: what was left is gone.
  Result<void> begin(const Layout& layout);
  SliceState& refcount_slices() { return *refcount_slices_; }
  SliceState& l2_slices() { return *l2_slices_; }
  TableState& refcount_table() { return *refcount_table_; }
  TableState& l1() { return *l1_; }

  // Nothing is left to write: the file goes.
  void end();

 private:
  struct Header;
  enum class WriteBack : uint64_t { kNone, kBegun, kEnded };
  Result<void> set_write_back(WriteBack progress);
  StateFile(std::string path, io::Descriptor descriptor, ImageIdentity image);
  void read_left();
  Result<void> map(uint64_t bytes);
  void unmap();

  const std::string path_;
  const io::Descriptor descriptor_;
  const ImageIdentity image_;
  Left left_ = Left::kNothing;
  LeftState left_state_;
  uint8_t* memory_ = nullptr;
  uint64_t mapped_ = 0;
  std::unique_ptr<SliceState> refcount_slices_, l2_slices_;
  std::unique_ptr<TableState> refcount_table_, l1_;
};

// Of what a piece is on disk.
uint64_t piece_checksum(std::span<const uint8_t> bytes);

}  // namespace platter::format::qcow2
