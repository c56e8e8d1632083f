// TableSwitch: gives an image a new L1 table, new reference counts and a new snapshot table, all at
// one instant.
//
// Taking, applying and deleting a snapshot change many counts and copied flags together, and in no
// order of writes would the tables agree in between. So nothing is changed in place: what differs
// is written to clusters that nothing refers to, made durable, and one write of header fields,
// within one sector, makes it count. A crash before that write leaves the old image, one after it
// the new one; what only the other one uses is free.
//
// Works on the file: caches are written back before, and forgotten after. Nothing else changes the
// image meanwhile. What it reads of the image is checked; EIO says that the image is corrupt.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "block/driver.h"
#include "format/qcow2/image.h"
#include "format/qcow2/reference_counts.h"
#include "format/qcow2/snapshots.h"

namespace platter::format::qcow2 {

class TableSwitch {
 public:
  explicit TableSwitch(Image& image);

  // Reads the counts. `new_bytes`: of the tables that will be allocated with allocate_table(), and
  // of those that commit() is given.
  io::Task<Result<void>> load(uint64_t new_bytes);

  // The same, with other counts: those that were found by following every reference. Where they
  // differ from the stored ones, and which refcount blocks cannot stay, is settled with the switch;
  // the reporter hears of each count. `only_lower`: counts that are too low stay as they are.
  io::Task<Result<void>> load_counted(const ReferenceCounts& counts, bool only_lower,
                                      uint64_t new_bytes, block::CheckReporter& reporter);

  // After load(): every count is to have another width. ENOTSUP: one of them does not fit.
  Result<void> change_refcount_order(unsigned order);

  // An L1 table without its copied flags.
  io::Task<Result<std::vector<uint64_t>>> read_l1(uint64_t offset, uint64_t entries);
  // One reference more, or less, to each L2 table that `l1` names and to everything below.
  io::Task<Result<void>> add_tree(std::vector<uint64_t> l1) { return change_tree(l1, true); }
  io::Task<Result<void>> drop_tree(std::vector<uint64_t> l1) { return change_tree(l1, false); }
  // Makes the copied flags of the tables below `l1`, the next active one, agree with the counts. A
  // table where that changes something is replaced by a copy, to which `references` of the
  // references to it go over: those from L1 tables that will be written with what `l1` then holds.
  io::Task<Result<void>> settle_flags(std::vector<uint64_t>& l1, uint64_t references);
  // The copied flags of `l1` itself, once counts are final.
  void settle_l1_flags(std::vector<uint64_t>& l1) const;

  // Consecutive clusters for `bytes`, one reference each; their host offset.
  Result<uint64_t> allocate_table(uint64_t bytes);
  io::Task<Result<void>> write_l1(uint64_t offset, const std::vector<uint64_t>& l1);
  // One reference less to each cluster of a table.
  Result<void> drop_table(uint64_t offset, uint64_t bytes);

  // The new image: its active L1 table (copied flags settled), snapshots and size. When it has
  // returned without error the header, in memory too, has them.
  io::Task<Result<void>> commit(const std::vector<uint64_t>& l1,
                                std::span<const Snapshot> snapshots, uint64_t size);

  const std::vector<uint64_t>& refcount_table() const { return table_; }
  // Nothing was written to the file beyond this offset, whether it worked or not.
  uint64_t written_end() const { return highest_ << geometry_.cluster_bits; }

  struct HostRange {
    uint64_t offset;
    uint64_t bytes;
  };
  // After commit(): what lost its last reference.
  std::vector<HostRange> freed() const;

 private:
  enum class BlockState : uint8_t { kClean, kPending, kPlaced };
  struct Write {
    uint64_t offset;
    size_t position;  // in staging_
    size_t bytes;
  };

  io::Task<Result<void>> load_stored(uint64_t new_bytes, bool tolerate);
  void move_block(uint64_t block);
  io::Task<Result<void>> change_tree(std::vector<uint64_t> l1, bool add);
  Result<void> change_entry(uint64_t entry, bool add);
  Result<void> change_run(uint64_t cluster, uint64_t clusters, bool add);
  // How many entries of an L2 table, from the one at byte `at`, name clusters that follow each
  // other, with the same flags: 1 where the first one names none.
  size_t run_length(std::span<const uint8_t> table, size_t at) const;
  Result<void> change(uint64_t cluster, bool add);
  Result<void> store(uint64_t cluster, uint64_t count);
  bool settle_entry_flag(uint8_t* bytes) const;
  // Both: of the run of entries there, whose length is returned.
  Result<size_t> change_entries(std::span<const uint8_t> table, size_t at, bool add);
  size_t settle_entries(std::span<uint8_t> table, size_t at, bool& changed) const;
  Result<uint64_t> allocate(uint64_t clusters);
  bool is_free(uint64_t cluster) const {
    return next_.get(cluster) == 0 && freed_.get(cluster) == 0;
  }

  Result<void> place_refcounts();
  io::Task<Result<void>> write_refcounts();
  io::Task<Result<void>> write_header(uint64_t l1_offset, uint64_t l1_entries,
                                      uint64_t snapshots_offset, uint64_t snapshot_count,
                                      uint64_t size);
  io::Task<Result<void>> stage(uint64_t offset, std::span<const uint8_t> bytes);
  io::Task<Result<void>> write_staged();

  Image& image_;
  Geometry geometry_;  // the next one, where the width of counts changes
  block::Child& file_;
  ReferenceCounts next_;
  ReferenceCounts freed_;  // 1: in use until the switch, not after it
  uint64_t search_from_ = 1;
  uint64_t highest_ = 0;         // after the last cluster that was allocated
  std::vector<uint64_t> table_;  // the next refcount table
  uint64_t table_offset_ = 0;
  std::vector<BlockState> blocks_;
  std::vector<uint64_t> pending_;  // blocks that need a new place
  // What is written next: at most kStagingBytes of tables, in one buffer that is used again.
  static constexpr size_t kStagingBytes = size_t{4} << 20;
  io::AlignedBuffer staging_;
  size_t staging_used_ = 0;
  std::vector<Write> staged_;
};

}  // namespace platter::format::qcow2
