// TableCache: slices of L2 tables or of refcount blocks, in a fixed budget of memory.
//
// A slice is a power-of-two part of a table. It is known by its number in the order of what it
// describes (guest offsets for L2 tables, host clusters for refcount blocks), so that a lookup
// needs no table above it and a table that moves on disk keeps its slices.
//
// The cache is set-associative with kWays ways: lookup and eviction are O(1). Entries are 8-byte
// words as they stand on disk (big-endian), read and written as atomics.
//
// Threads. read() takes no lock and may run on any reactor: it reads the tag, then the words, then
// the tag again; whoever evicts a slice changes the tag first. Tags carry a generation, so a slice
// that left and came back in between is noticed. Everything else takes a short mutex. Modifying a
// slice needs a pin and, by the owner's convention, the image's allocation mutex.
//
// Entries of two words (extended L2 entries) must not be seen with one word changed. Pin::change()
// takes the tag away while it runs: a reader without the lock then sees the slice as not cached, or
// finds at the end that the tag is another one; it comes back with a pin, and Pin::look() takes
// turns with change(). The words of single-word entries change under any reader's eyes, and
// change() and look() only call the function.
//
// A pinned, dirty or just-being-written slice stays. Where a set has no other way left, a further
// slice lives in an overflow list: inserting never fails. under_pressure() then tells the owner to
// write back.
//
// The slices may lie in a state file (state_file.h), which then knows at every instant what the
// disk lacks.
//
// Memory is taken from the system as slices come, and stays until give_back_unused() returns that
// of slices which nobody has used for a while.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/bytes.h"
#include "block/node.h"
#include "format/qcow2/state_file.h"
#include "io/buffer.h"
#include "io/sync.h"
#include "io/task.h"
#include "platter/error.h"

namespace platter::format::qcow2 {

// The words of one cached slice.
class SliceWords {
 public:
  SliceWords(uint64_t* words, size_t count) : words_(words), count_(count) {}
  size_t size() const { return count_; }
  uint64_t get(size_t index) const {
    return base::from_big_endian(
        std::atomic_ref<uint64_t>(words_[index]).load(std::memory_order_acquire));
  }
  void set(size_t index, uint64_t value) const {
    std::atomic_ref<uint64_t>(words_[index])
        .store(base::from_big_endian(value), std::memory_order_release);
  }
  // All words as they stand on disk.
  void copy_to(std::span<uint8_t> bytes) const;
  void copy_from(std::span<const uint8_t> bytes) const;

 private:
  uint64_t* words_;
  size_t count_;
};

class TableCache {
 public:
  static constexpr unsigned kWays = 8;
  // acquire(): the slice is known to be all zeroes on disk; do not read it.
  static constexpr uint64_t kReadsZero = UINT64_MAX;

  struct Config {
    uint64_t slice_bytes = 4096;  // power of two, at least 512
    uint64_t budget_bytes = 1 << 20;
    uint64_t slice_count = UINT64_MAX;  // how many slices the tables have in all
    block::DebugEvent load_event = block::DebugEvent::kL2Load;  // what reading a slice passes
    bool paired_words = false;                                  // entries are of two words
  };

  explicit TableCache(Config config);
  ~TableCache();
  TableCache(const TableCache&) = delete;
  TableCache& operator=(const TableCache&) = delete;

  uint64_t slice_bytes() const { return slice_bytes_; }
  size_t slice_words() const { return slice_bytes_ / 8; }

  // How many slices a state file has to have room for: where all slots of a set are taken, some
  // lie beside them.
  size_t state_slots() const;
  // From now on the slices lie there. The cache is empty, and is so again before the file ends.
  void keep_in(SliceState& state);

 private:
  struct Slot;

 public:
  // Keeps a slice in the cache while it lives.
  class Pin {
   public:
    Pin(TableCache* cache, Slot* slot) : cache_(cache), slot_(slot) {}
    Pin(Pin&& other) noexcept : cache_(other.cache_), slot_(std::exchange(other.slot_, nullptr)) {}
    Pin& operator=(Pin&& other) noexcept;
    ~Pin() { release(); }
    // Of a cache of single-word entries, or where no other thread is at work.
    SliceWords words() const;
    // Calls fn(SliceWords), which must not suspend. Under the owner's mutex.
    template <typename Fn>
    void change(Fn fn) {
      if (!cache_->paired_words_) return fn(words());
      std::lock_guard lock(cache_->mutex_);
      const uint64_t tag = cache_->hide_locked(slot_);
      fn(words());
      cache_->show_locked(slot_, tag);
    }
    // The same, to read.
    template <typename Fn>
    void look(Fn fn) const {
      if (!cache_->paired_words_) return fn(words());
      std::lock_guard lock(cache_->mutex_);
      fn(words());
    }
    // Before or after the change, while pinned.
    void mark_dirty();

   private:
    void release();
    TableCache* cache_;
    Slot* slot_;
  };

  // Calls fn(SliceWords) on the slice if it is cached and returns true if what fn saw belongs to
  // it. fn may see words of another slice (then false is returned): it must be able to bear any
  // content.
  template <typename Fn>
  bool read(uint64_t key, Fn fn) const {
    const size_t first = set_of(key) * ways_;
    for (size_t slot = first; slot < first + ways_; ++slot) {
      const uint64_t tag = tags_[slot].load(std::memory_order_acquire);
      if ((tag & kKeyMask) != key + 1) continue;
      fn(SliceWords(words_ + slot * slice_words(), slice_words()));
      mark_used(slot);
      return tags_[slot].load(std::memory_order_relaxed) == tag;
    }
    return false;
  }

  // Has a word of the slice brought to the processor if it is cached.
  void prefetch(uint64_t key, size_t word) const {
    const size_t first = set_of(key) * ways_;
    for (size_t slot = first; slot < first + ways_; ++slot) {
      if ((tags_[slot].load(std::memory_order_relaxed) & kKeyMask) != key + 1) continue;
      __builtin_prefetch(words_ + slot * slice_words() + word);
      return;
    }
  }

  // Where a slice is read from: an offset, or a place in the table that an entry names when it
  // comes to reading. A reader that holds no lock gives the entry: the table may have moved while
  // it waited for its turn.
  struct Place {
    Place(uint64_t host_offset) : offset(host_offset) {}
    Place(const std::atomic<uint64_t>& table_entry, uint64_t in_table)
        : entry(&table_entry), offset(in_table) {}
    uint64_t host_offset() const;
    const std::atomic<uint64_t>* entry = nullptr;
    uint64_t offset;
  };

  // Copies the slice if it is cached, wherever it is kept.
  bool copy_if_cached(uint64_t key, std::span<uint8_t> bytes) const;

  // The slice, read from `place` in `file` if it is not cached. Misses of one slice are merged.
  // What lies past the file's end is zero. `file` may be null with kReadsZero. ENOSPC: the state
  // file has no memory for it.
  io::Task<Result<Pin>> acquire(uint64_t key, block::Child* file, Place place);

  // ---- Write-back. The caller holds the allocation mutex in take_dirty.
  struct Staged {
    Slot* slot;
    uint64_t key;
    size_t position;        // of the copy in the staging buffer
    uint64_t checksum = 0;  // of the copy, where a state file wants it
  };
  size_t dirty_count() const;
  // Copies every dirty slice to `staging` (slice_bytes() each), marks it clean and being written.
  std::vector<Staged> take_dirty(std::vector<uint8_t>& staging);
  // The slices were written, or not: then they are dirty again.
  void end_write(std::span<const Staged> staged, bool written);
  // Slices had to go to the overflow list, or more than half is dirty and not every slice has a
  // slot.
  bool under_pressure() const { return pressure_.load(std::memory_order_relaxed); }

  // Forgets every slice (all clean, none pinned): after the tables were changed on disk by other
  // means.
  void clear();

  // ---- Memory
  // Evicts the slices that nobody has used since the last time, and gives the memory of all that is
  // empty back to the system, by pages: a slice shares its page's fate. What is pinned, dirty or
  // just being written stays. Lets other tasks run on the way. Calls do not overlap.
  io::Task<void> give_back_unused();
  // Of slices, held from the system now; what is in the overflow list excepted.
  uint64_t held_bytes() const;

 private:
  // Of a tag: tables of at most 2^22 entries (kMaxL1TableBytes) have fewer slices. The rest counts
  // generations, enough of them that none comes back within one lookup.
  static constexpr uint64_t kKeyMask = (uint64_t{1} << 40) - 1;
  static constexpr size_t kStripes = 128;
  // Of referenced_: what the clock and give_back_unused() take away, each its own.
  static constexpr uint8_t kSinceClock = 1;
  static constexpr uint8_t kSinceCleaning = 2;
  static constexpr uint8_t kUsed = kSinceClock | kSinceCleaning;
  // Looked at by give_back_unused() under one lock.
  static constexpr size_t kCleanedAtOnce = 4096;
  // Of a state file, beside half as many as there are slots.
  static constexpr size_t kOverflowSlots = 1024;

  size_t set_of(uint64_t key) const {
    if (direct_) return key % sets_;
    key *= 0x9e3779b97f4a7c15;
    return (key ^ (key >> 32)) % sets_;
  }
  // Readers do so without the lock: at worst a use is lost.
  void mark_used(size_t slot) const {
    if (referenced_[slot].load(std::memory_order_relaxed) != kUsed)
      referenced_[slot].store(kUsed, std::memory_order_relaxed);
  }
  Slot* find_locked(uint64_t key) const;
  Slot* choose_victim_locked(uint64_t key);
  Result<Pin> insert(uint64_t key, std::span<const uint8_t> content);
  Result<std::unique_ptr<Slot>> make_overflow_locked();
  size_t index_of(const Slot* slot) const;
  bool try_pin(uint64_t key, Slot** slot);
  void unpin(Slot* slot);
  void set_dirty(Slot* slot);
  void drop_overflow_locked(Slot* slot);
  void update_pressure_locked();
  void give_back_unused_among(size_t first, size_t end);
  bool evict_unused_locked(size_t first, size_t end);
  void give_back_locked(size_t first, size_t end);
  uint64_t next_generation(size_t index) const {
    return (tags_[index].load(std::memory_order_relaxed) & ~kKeyMask) + kKeyMask + 1;
  }
  // Takes a slot's tag away and returns it; gives it back, of another generation.
  uint64_t hide_locked(Slot* slot);
  void show_locked(Slot* slot, uint64_t tag);

  uint64_t slice_bytes_;
  bool paired_words_;
  block::DebugEvent load_event_;
  size_t ways_;
  size_t sets_;
  bool direct_;
  uint64_t* words_ = nullptr;          // lazily touched
  SliceState* state_ = nullptr;        // where the words are, or null
  std::vector<size_t> free_overflow_;  // of its slots
  size_t mapped_bytes_ = 0;
  size_t slots_a_page_ = 1;  // or 1 where a slot is of several pages
  uint64_t held_slots_ = 0;
  std::unique_ptr<std::atomic<uint64_t>[]> tags_;  // generation << 40 | key + 1; key part 0: empty
  std::unique_ptr<std::atomic<uint8_t>[]> referenced_;
  std::vector<uint8_t> hands_;  // of the clock, one a set

  // slots_, overflow_, hands_, dirty_, held_slots_, changes of tags_ and of paired words
  mutable std::mutex mutex_;
  std::vector<Slot> slots_;
  std::unordered_map<uint64_t, std::unique_ptr<Slot>> overflow_;
  std::vector<Slot*> dirty_;
  std::atomic<bool> pressure_ = false;
  io::AsyncMutex loading_[kStripes];
};

struct TableCache::Slot {
  uint64_t key = 0;
  uint64_t* words = nullptr;
  uint32_t pins = 0;
  bool occupied = false;
  bool dirty = false;
  bool writing = false;
  bool held = false;  // written to since its memory was given back
  bool overflow = false;
  std::unique_ptr<uint64_t[]> own_words;  // of a slot in the overflow list, without a state file
  size_t state_slot = 0;                  // of one with it

  bool evictable() const { return pins == 0 && !dirty && !writing; }
};

}  // namespace platter::format::qcow2
