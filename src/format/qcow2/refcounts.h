// Refcounts: how many references every host cluster has, and where free ones are.
//
// The refcount table is held in memory whole, refcount blocks by slices in a TableCache. Everything
// here happens under the image's allocation mutex (const table walks included), except load().
#pragma once

#include <cstdint>
#include <vector>

#include "format/qcow2/image.h"
#include "format/qcow2/reference_counts.h"
#include "format/qcow2/table_cache.h"

namespace platter::format::qcow2 {

class FreeQueue;

// Contiguous clusters that were just allocated, one reference each.
struct HostRun {
  uint64_t offset = 0;
  uint64_t clusters = 0;
  bool fresh = false;  // beyond everything the file has ever held: reads as zeroes
};

class Refcounts {
 public:
  Refcounts(Image& image, FreeQueue& frees, TableCache::Config cache);

  io::Task<Result<void>> load();

  io::Task<Result<uint64_t>> get(uint64_t cluster);
  // The first free clusters there are, at most `max_clusters`, at least one.
  io::Task<Result<HostRun>> allocate(uint64_t max_clusters);
  // Exactly so many in one run: for tables.
  io::Task<Result<HostRun>> allocate_contiguous(uint64_t clusters);
  // Where `length` bytes go, at most a cluster: behind what was allocated so before, where that is
  // possible. Every cluster that they touch has one more reference.
  io::Task<Result<uint64_t>> allocate_bytes(uint64_t length);
  io::Task<Result<void>> release_bytes(uint64_t offset, uint64_t length);
  // Nothing more is put into the cluster that allocate_bytes() filled last. Called before a
  // reference of such a cluster is queued to be freed: the file may then be told to discard it.
  void leave_tail() { tail_ = 0; }
  // Drops one reference of each cluster; those with none left may be allocated again at once.
  io::Task<Result<void>> release(uint64_t host_offset, uint64_t clusters);

  // ---- Write-back
  TableCache& cache() { return cache_; }
  uint64_t slice_host_offset(uint64_t key) const;
  bool table_dirty() const { return !dirty_.empty(); }
  void take_dirty_table(std::vector<uint8_t>& staging, std::vector<StagedWrite>& writes);
  void end_table_write(std::span<const StagedWrite> writes, std::span<const uint8_t> staging,
                       bool written);
  // From load() on, what the disk lacks is there.
  void keep_in(SliceState& slices, TableState& table);

  // Of the image's OverlapGuard, which knows nothing of them yet.
  void claim_structures();

  // The cluster after the last one that has a reference.
  io::Task<Result<uint64_t>> end_of_used();
  // Takes the last refcount blocks out of the table while they count nothing but themselves. The
  // cache holds nothing dirty and is empty afterwards.
  io::Task<Result<void>> drop_empty_blocks();
  // The tables in the file have been replaced: `table` is the new one, as on disk. The cache holds
  // nothing dirty.
  void adopt(std::vector<uint64_t> table);
  // Tells that the file holds (or held) bytes up to `end`: nothing below is fresh.
  void file_reached(uint64_t end);
  // The file was truncated to (or not far beyond) end_of_used(): what it grows by now is fresh
  // again.
  void file_was_cut();

  // As Mapping's.
  void renew_cache(TableCache::Config cache);
  void tell_state_file() { dirty_.table_is_at(image_.header.refcount_table_offset, *image_.log); }

 private:
  uint64_t block_of(uint64_t cluster) const {
    return image_.geometry.refcount_table_index(cluster);
  }
  uint64_t slice_entries() const;
  uint64_t slice_of(uint64_t cluster) const { return cluster / slice_entries(); }
  Result<uint64_t> check_block_entry(uint64_t block) const;
  io::Task<Result<TableCache::Pin>> slice(uint64_t cluster);
  io::Task<Result<void>> set_range(uint64_t cluster, uint64_t count, uint64_t value);
  io::Task<Result<void>> add_blocks(uint64_t first_block, uint64_t blocks, uint64_t clusters_used);
  io::Task<Result<HostRun>> allocate_beyond(uint64_t clusters);
  io::Task<Result<void>> grow_table(uint64_t min_entries);
  uint64_t first_block_beyond() const;
  bool overlaps_metadata(uint64_t host_offset, uint64_t bytes) const;
  io::Task<Result<void>> add_reference(uint64_t cluster);
  io::Task<Result<HostRun>> finish_allocation(uint64_t cluster, uint64_t clusters);

  Image& image_;
  FreeQueue& frees_;
  TableCache cache_;
  std::vector<uint64_t> table_;
  DirtyUnits dirty_;
  uint64_t free_hint_ = 0;   // no cluster below it is free
  uint64_t fresh_from_ = 0;  // host offset
  uint64_t tail_ = 0;        // host offset behind the last compressed stream; 0: begin a cluster
};

// A reference count in the words of a slice. `index` counts from the slice's start.
uint64_t load_refcount(SliceWords words, uint64_t index, unsigned order);
void store_refcount(SliceWords words, uint64_t index, unsigned order, uint64_t value);

}  // namespace platter::format::qcow2
