// Mapping: where each guest cluster lives. The L1 table is held in memory whole, L2 tables by
// slices in a TableCache that is keyed by guest offset: a hit needs neither the L1 nor a lock.
//
// Lookups may run on any reactor at any time. Changes happen under the image's allocation mutex.
// The L1 is replaced only while no request is in flight (resize).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "format/qcow2/image.h"
#include "format/qcow2/table_cache.h"

namespace platter::format::qcow2 {

class FreeQueue;
class Refcounts;

// A run of guest bytes that one statement describes. With subclusters it begins and ends with any
// of them.
struct Run {
  ClusterKind kind = ClusterKind::kUnallocated;
  bool copied = false;
  uint64_t length = 0;       // bytes from the offset asked
  uint64_t host_offset = 0;  // has_host(): of the first byte asked (contiguous over the run)
  uint64_t entry = 0;        // as stored, of the first cluster
};

class Mapping {
 public:
  Mapping(Image& image, Refcounts& refcounts, FreeQueue& frees, TableCache::Config cache);

  io::Task<Result<void>> load();

  // Without a lock and without waiting: nullopt if the slice is not cached. The run ends at the
  // latest with the slice and never exceeds `max_length` (> 0). Its kind may be kInvalid: lookup()
  // reports that.
  std::optional<Run> try_lookup(uint64_t offset, uint64_t max_length) const;
  // The same; reads the slice if need be.
  io::Task<Result<Run>> lookup(uint64_t offset, uint64_t max_length);
  // Has the entry of `offset` brought to the processor, if it is cached.
  void prefetch(uint64_t offset) const {
    cache_.prefetch(key_of(offset), index_in_slice(offset) * image_.geometry.l2_entry_words());
  }
  // As long a run as there is within `max_length`, over slices and tables; tables that are not
  // cached are read whole and not kept. For status.
  io::Task<Result<Run>> lookup_long(uint64_t offset, uint64_t max_length);

  // ---- Under the allocation mutex
  // The slice that maps `offset`, in a table that exists and is ours alone.
  io::Task<Result<TableCache::Pin>> writable_slice(uint64_t offset);
  // Makes the table so, without a slice.
  io::Task<Result<void>> ensure_table(uint64_t offset);
  // Of the image's OverlapGuard, which knows nothing of them yet.
  void claim_structures();
  bool has_table(uint64_t offset) const { return load_l1(image_.geometry.l1_index(offset)) != 0; }
  // The entry of the cluster that `offset` lies in; `bitmap` is 0 without subclusters.
  io::Task<Result<ExtendedEntry>> entry_at(uint64_t offset);
  size_t index_in_slice(uint64_t offset) const {
    return (offset >> image_.geometry.cluster_bits) & (slice_entries_ - 1);
  }
  size_t slice_entries() const { return slice_entries_; }
  // Guest bytes that a slice maps.
  uint64_t slice_coverage() const { return uint64_t{1} << slice_shift_; }

  // ---- Write-back
  TableCache& cache() { return cache_; }
  uint64_t slice_host_offset(uint64_t key) const;
  void take_dirty_l1(std::vector<uint8_t>& staging, std::vector<StagedWrite>& writes);
  void end_l1_write(std::span<const StagedWrite> writes, std::span<const uint8_t> staging,
                    bool written);
  // From load() on, what the disk lacks is there.
  void keep_in(SliceState& slices, TableState& l1);
  bool l1_dirty() const { return !dirty_.empty(); }

  // ---- Resize; no request is in flight.
  struct NewL1 {
    std::unique_ptr<std::atomic<uint64_t>[]> table;
    uint64_t entries = 0;
    uint64_t host_offset = 0;
    uint64_t clusters = 0;
  };
  // Writes a longer copy of the table to new clusters. A write-back round makes them durable; then
  // adopt_l1 names them in the header (fields in one write, flush) and frees the old ones.
  io::Task<Result<NewL1>> prepare_l1(uint64_t entries);
  io::Task<Result<void>> adopt_l1(NewL1 next);
  // The tables in the file have been replaced: `l1` is the new one, as on disk. The cache holds
  // nothing dirty.
  void adopt(std::span<const uint64_t> l1);
  // Lets go of the L2 tables from `first_entry` on, which map nothing. The cache holds nothing
  // dirty and is empty afterwards.
  void drop_tables(uint64_t first_entry);
  uint64_t l1_entries() const { return l1_entries_; }

  // Another cache, empty and in no state file, in place of the one before, which holds nothing
  // dirty or pinned. No request is in flight.
  void renew_cache(TableCache::Config cache);
  // A state file that the tables lie in from now on is told where they are on disk. Nothing is
  // dirty.
  void tell_state_file() { dirty_.table_is_at(image_.header.l1_table_offset, *image_.log); }

 private:
  uint64_t load_l1(uint64_t index) const { return l1_[index].load(std::memory_order_acquire); }
  uint64_t key_of(uint64_t offset) const { return offset >> slice_shift_; }
  void measure_slices();
  io::Task<Result<uint64_t>> check_l1(uint64_t index);
  io::Task<Result<Run>> report_invalid(uint64_t offset, Run run);
  io::Task<Result<Run>> lookup_table(uint64_t offset, uint64_t max_length, uint64_t table_offset);

  Image& image_;
  Refcounts& refcounts_;
  FreeQueue& frees_;
  TableCache cache_;
  size_t slice_entries_ = 0;
  unsigned slice_shift_ = 0;
  bool plain_;  // neither subclusters nor a data file
  std::unique_ptr<std::atomic<uint64_t>[]> l1_;
  uint64_t l1_entries_ = 0;
  DirtyUnits dirty_;
};

}  // namespace platter::format::qcow2
