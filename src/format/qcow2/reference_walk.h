// ReferenceWalk: follows every reference that an image holds, counts them per cluster, and reports
// what cannot be followed. The first half of a check; also what a rebuild of reference counts
// starts from.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "block/driver.h"
#include "format/qcow2/check.h"
#include "format/qcow2/reference_counts.h"
#include "format/qcow2/snapshots.h"

namespace platter::format::qcow2 {

class ReferenceWalk {
 public:
  // All references outlive the walk. `stored` are the image's own counts, to compare copied flags
  // with; null: don't.
  ReferenceWalk(block::Child& file, const Header& header, const ReferenceCounts* stored,
                block::CheckReporter& reporter, block::CheckResult& result, CheckOptions options);

  // An error means that the walk could not go on; what is wrong with the image is reported and
  // counted in the result.
  io::Task<Result<void>> run(std::span<const uint64_t> refcount_table, SnapshotTable snapshots);

  // One count more than the file has whole and partial clusters: a table may end in the cluster
  // that the file ends before.
  const ReferenceCounts& counts() const { return counts_; }
  ReferenceCounts take_counts() { return std::move(counts_); }
  // Active entries whose copied flag disagrees with the stored counts. They are not reported here.
  uint64_t copied_mismatches() const { return copied_mismatches_; }
  // Reports each of those, in order, by a second look at the active tables.
  io::Task<Result<void>> report_copied_mismatches(std::span<const uint64_t> refcount_table);

 private:
  // An L2 table, and how often it is referenced.
  struct TableUse {
    uint64_t offset;
    uint64_t first_index;  // in its L1 table
    uint64_t weight;
  };
  // An L1 table, and how many snapshots have it.
  struct L1Use {
    uint64_t offset;
    uint64_t entries;
    uint64_t weight;
    bool operator<(const L1Use& other) const;
  };

  void corruption(std::string line);
  void count(uint64_t offset, uint64_t length, uint64_t weight = 1);
  bool count_cluster(uint64_t cluster, uint64_t weight);

  io::Task<Result<std::vector<uint64_t>>> read_table(uint64_t offset, uint64_t entries);
  io::Task<Result<void>> walk_active();
  io::Task<Result<void>> walk_inactive(std::span<const Snapshot> snapshots);
  io::Task<Result<void>> walk_bitmaps();
  void walk_refcount_blocks(std::span<const uint64_t> refcount_table);

  bool check_l1_entry(uint64_t entry, uint64_t weight);
  static void merge_uses(std::vector<TableUse>& uses);
  io::Task<Result<void>> walk_l2_tables(std::vector<TableUse> uses, bool active);
  void walk_l2(std::span<const uint8_t> table, const TableUse& use, bool active);
  bool check_bitmap(const ExtendedEntry& entry, uint64_t index);
  void walk_compressed(uint64_t entry, uint64_t weight, bool active);
  bool is_preallocated(uint64_t entry) const;
  void walk_allocated(uint64_t entry, uint64_t weight, bool active);
  void walk_external(uint64_t entry, uint64_t guest_offset);
  // Whether an L2 entry that is not of a compressed cluster has a host cluster.
  bool is_allocated(uint64_t entry) const;
  bool copied_disagrees(uint64_t entry) const;
  bool data_copied_disagrees(uint64_t entry) const;
  io::Task<void> report_copied_flag_of_l1(uint64_t index, uint64_t entry);
  io::Task<void> report_copied_flags_of_l2(std::span<const uint8_t> table);
  // What `stored_` has; a cluster past it has none here, and exact_count() looks for it.
  uint64_t stored_count(uint64_t offset) const;
  io::Task<uint64_t> exact_count(uint64_t offset);

  block::Child& file_;
  const Header& header_;
  const Geometry geometry_;
  const ReferenceCounts* stored_;
  block::CheckReporter& reporter_;
  block::CheckResult& result_;
  const CheckOptions options_;
  const uint64_t file_size_;
  ReferenceCounts counts_;
  bool out_of_memory_ = false;
  uint64_t next_contiguous_ = 0;
  uint64_t copied_mismatches_ = 0;
  std::span<const uint64_t> refcount_table_;
};

// What the walk's counts cover of a file of this size: all its clusters and one more.
uint64_t counted_clusters(uint64_t file_size, const Geometry& geometry);

}  // namespace platter::format::qcow2
