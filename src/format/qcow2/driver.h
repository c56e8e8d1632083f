// The live qcow2 driver: one open image.
//
// Reads and in-place writes take no lock: a mapping lookup in a cached slice, then the file.
// Whatever changes a mapping goes through the image's allocation mutex, for the metadata only.
// Specification: docs/format/qcow2.md. Order of writes: order.h. Lock order: image.h.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "block/driver.h"
#include "block/node.h"
#include "format/qcow2/bitmap_store.h"
#include "format/qcow2/cache_cleaner.h"
#include "format/qcow2/compressed.h"
#include "format/qcow2/compressor.h"
#include "format/qcow2/encryption.h"
#include "format/qcow2/free_queue.h"
#include "format/qcow2/image.h"
#include "format/qcow2/in_flight.h"
#include "format/qcow2/mapping.h"
#include "format/qcow2/open_options.h"
#include "format/qcow2/refcounts.h"
#include "format/qcow2/snapshots.h"
#include "format/qcow2/state_file.h"
#include "format/qcow2/table_switch.h"
#include "format/qcow2/writeback.h"
#include "io/sync.h"
#include "io/turns.h"

namespace platter::format::qcow2 {

class Qcow2 final : public block::Driver,
                    public block::Resizable,
                    public block::Checkable,
                    public block::Charted,
                    public block::SnapshotStore,
                    public block::VmStateStore,
                    public block::Emptiable,
                    public block::Compactable,
                    public block::Rebasable,
                    public block::Amendable,
                    public block::Reopenable,
                    public block::BitmapStore {
 public:
  static io::Task<Result<std::unique_ptr<block::Driver>>> open(block::OpenContext& context);
  ~Qcow2() override;

  uint64_t size() const override { return size_.load(std::memory_order_acquire); }
  block::Limits limits() const override;
  void prefetch(uint64_t offset) const override { mapping_.prefetch(offset); }
  io::Task<Result<void>> read(uint64_t offset, io::BufferList buffers) override;
  io::Task<Result<void>> write(uint64_t offset, io::BufferList buffers,
                               block::WriteFlags flags) override;
  io::Task<Result<void>> zero(uint64_t offset, uint64_t length, block::WriteFlags flags) override;
  io::Task<Result<void>> discard(uint64_t offset, uint64_t length) override;
  io::Task<Result<void>> flush() override;
  io::Task<Result<block::BlockStatus>> status(uint64_t offset, uint64_t length,
                                              block::StatusDetail detail) override;
  io::Task<Result<void>> close() override;
  Result<block::DriverInfo> info() const override;
  io::Task<Result<uint64_t>> allocated_size() override;
  ChildPermissions child_permissions(const block::Child& child, block::Permissions needed,
                                     block::Permissions shared) const override;
  std::optional<block::BackingReference> backing_reference() const override;
  bool zero_initialised() const override;

  block::Resizable* resizable() override { return this; }
  block::Checkable* checkable() override { return this; }
  block::Charted* charted() override { return this; }
  block::SnapshotStore* snapshot_store() override { return this; }
  std::vector<block::SnapshotInfo> snapshots() const override;
  io::Task<Result<void>> create_snapshot(block::SnapshotInfo snapshot) override;
  io::Task<Result<void>> apply_snapshot(std::string id) override;
  io::Task<Result<void>> delete_snapshot(std::string id) override;
  io::Task<Result<void>> load_snapshot(std::string id) override;
  // A data file holds the disk alone.
  block::VmStateStore* vm_state_store() override {
    return image_.geometry.external_data ? nullptr : this;
  }
  io::Task<Result<void>> read_vm_state(uint64_t offset, io::BufferList buffers) override;
  io::Task<Result<void>> write_vm_state(uint64_t offset, io::BufferList buffers) override;
  block::Emptiable* emptiable() override { return this; }
  block::Compactable* compactable() override { return this; }
  io::Task<Result<block::CompactResult>> compact(
      io::CancelToken cancel, std::function<void(uint64_t, uint64_t)> progress) override;
  block::Rebasable* rebasable() override { return this; }
  block::Amendable* amendable() override { return this; }
  io::Task<Result<void>> amend(const base::OptionSet& options, bool force,
                               std::function<void(uint64_t, uint64_t)> progress) override;
  block::Reopenable* reopenable() override { return this; }
  io::Task<Result<void>> reopen(base::OptionSet options, block::OpenFlags flags) override;
  // Version 2 has no bitmaps.
  block::BitmapStore* bitmap_store() override {
    return image_.geometry.version >= 3 ? this : nullptr;
  }
  std::vector<block::BitmapInfo> bitmaps() const override { return bitmaps_.list(); }
  Result<void> add_bitmap(std::string name, uint64_t granularity, bool enabled) override;
  Result<void> remove_bitmap(std::string name) override;
  Result<void> clear_bitmap(std::string name) override;
  Result<void> enable_bitmap(std::string name, bool on) override;
  Result<void> merge_bitmap(std::string name, const block::DirtyBitmap& source) override;
  io::Task<Result<std::shared_ptr<block::DirtyBitmap>>> bitmap_bits(std::string name) override;
  io::Task<Result<void>> resize(uint64_t size, block::Preallocation preallocation,
                                bool exact) override;
  io::Task<Result<void>> make_empty() override;
  io::Task<Result<void>> change_backing_reference(block::BackingReference reference) override;
  io::Task<Result<block::CheckResult>> check(block::CheckReporter& reporter) override;
  // Of an image that was opened to be checked.
  io::Task<Result<block::CheckResult>> repair(block::CheckReporter& reporter,
                                              block::Repair what) override;
  io::Task<Result<block::CheckResult>> chart(block::LayoutVisitor& visitor) override;

 private:
  struct CompressedGroup;
  struct CompressedWrite;
  struct LastDecompressed;
  struct Plan;
  enum class Release { kToZero, kToZeroKeepHost, kToBacking };

  Qcow2(block::Node& node, block::Child& file, const base::Log& log, Header header,
        const CacheSizes& caches, const OpenOptions& options);

  // open.cc
  io::Task<Result<void>> load();
  io::Task<Result<void>> prepare_encryption(block::OpenContext& context);
  io::Task<Result<void>> use_state_file();
  io::Task<Result<void>> begin_writing();
  io::Task<Result<void>> load_bitmaps(block::OpenFlags flags, uint64_t max_metadata_bytes);
  io::Task<Result<std::vector<Snapshot>>> load_snapshots(block::OpenFlags flags);
  io::Task<Result<void>> repair_dirty();
  io::Task<Result<void>> claim_structures();

  // reopen.cc
  io::Task<Result<void>> end_writing();
  io::Task<Result<void>> become_writable();
  io::Task<Result<void>> change_write_options();
  Result<void> check_reopen(const base::OptionSet& options) const;
  // The caches hold nothing afterwards. On an error they are of the sizes that they had.
  io::Task<Result<void>> change_caches(CacheSizes sizes);
  io::Task<Result<void>> renew_caches(CacheSizes sizes);
  void start_cleaner();
  io::Task<void> stop_cleaner();

  // read.cc
  io::Task<Result<void>> read_slow(uint64_t offset, io::BufferList buffers);
  // Behind the tables that the disk takes. No request of a guest gets there.
  uint64_t vm_state_offset() const { return base::align_up(size(), image_.geometry.l2_coverage()); }
  bool is_vm_state(uint64_t offset) const { return offset >= vm_state_offset(); }
  io::Task<Result<void>> read_run(Run run, uint64_t offset, io::BufferList buffers);
  // Passes the point of the image file, then reads.
  io::Task<Result<void>> read_data_at_point(uint64_t host_offset, uint64_t guest_offset,
                                            io::BufferList buffers);
  io::Task<Result<void>> read_backing_at_point(uint64_t offset, io::BufferList buffers);
  // Guest data at `host_offset`, which the guest has at `guest_offset`, through its encryption.
  io::Task<Result<void>> read_data(uint64_t host_offset, uint64_t guest_offset,
                                   io::BufferList buffers);
  io::Task<Result<void>> write_data(uint64_t host_offset, uint64_t guest_offset,
                                    io::BufferList buffers);
  io::Task<Result<void>> read_backing(uint64_t offset, io::BufferList buffers);
  io::Task<Result<void>> read_compressed(Run run, uint64_t offset, io::BufferList buffers);
  io::Task<Result<void>> extend_group(CompressedGroup& group, uint64_t limit);
  io::Task<Result<void>> read_compressed_group(CompressedGroup group, io::BufferList buffers);
  io::Task<Result<void>> read_whole_clusters(CompressedGroup group, io::BufferList buffers);
  bool reads_zero(ClusterKind kind) const;
  // Whether what a run of `kind` at `offset` shows is known to be zeroes, its place under a shorter
  // backing file considered.
  bool run_reads_zero(ClusterKind kind, uint64_t offset) const;
  // Whether the file is likely to have holes in data clusters, so that asking it pays.
  io::Task<Result<bool>> is_sparse();

  // write.cc
  io::Task<Result<void>> write_slow(uint64_t offset, io::BufferList buffers);
  io::Task<Result<void>> write_durably(uint64_t offset, io::BufferList buffers,
                                       block::WriteFlags flags);
  io::Task<Result<uint64_t>> write_allocating(uint64_t offset, io::BufferList buffers);
  io::Task<Result<bool>> plan_allocation(Plan& plan, uint64_t offset, uint64_t length);
  io::Task<Result<HostRun>> allocate_data(uint64_t guest_offset, uint64_t clusters);
  io::Task<Result<void>> plan_surroundings(Plan& plan, Run first);
  io::Task<Result<bool>> range_reads_zero(uint64_t offset, uint64_t end, Run near);
  io::Task<Result<uint64_t>> count_allocatable(uint64_t offset, uint64_t max_clusters);
  io::Task<bool> backing_is_hole(const Plan& plan);
  io::Task<Result<void>> write_planned(Plan& plan, io::BufferList buffers);
  io::Task<Result<void>> link(Plan& plan);
  uint64_t link_entry(const Plan& plan, SliceWords words, size_t index) const;
  io::Task<void> abandon(Plan& plan, uint64_t linked_clusters);
  // What every request that changes the disk begins with, even if it finds nothing to change.
  io::Task<Result<void>> begin_guest_write();
  // Both under the allocation mutex: what has to be on disk before the first write, and before the
  // first allocation.
  io::Task<Result<void>> prepare_write();
  // Of the autoclear features: what a raw data file promises, we keep.
  uint64_t raw_data_promise() const { return image_.has_raw_data_file() ? kRawExternalData : 0; }
  io::Task<Result<void>> prepare_allocation();
  // What of it concerns counts alone: before tables are written that hold no guest data.
  io::Task<Result<void>> prepare_counts();
  Result<void> check_writable() const;
  bool may_hold_data(uint64_t host_offset, uint64_t length) const {
    return image_.geometry.external_data || image_.guard.is_clear(host_offset, length);
  }
  io::Task<Result<void>> check_data_place(uint64_t host_offset, uint64_t length);
  io::Task<Result<void>> relieve_pressure();
  void queue_free(uint64_t entry, FreeReason reason);

  // write_compressed.cc
  io::Task<Result<void>> write_compressed(uint64_t offset, io::BufferList buffers);
  io::Task<void> compress(CompressedWrite& write);
  io::Task<bool> compress_group(CompressedWrite& write, size_t begin, size_t end);
  io::Task<Result<void>> place_compressed(CompressedWrite& write);
  io::Task<Result<void>> place_run(CompressedWrite& write, size_t begin, size_t end);
  io::Task<Result<void>> write_placed(CompressedWrite& write);
  io::Task<Result<void>> link_compressed(CompressedWrite& write);
  io::Task<void> end_compressed(CompressedWrite& write);

  // zero.cc
  // Zeroes in the file that a mapping still names decrypt to something else: a power cut would show
  // it.
  bool may_punch_before_mapping() const {
    return options_.pass_discard_request && encryption_ == nullptr;
  }
  io::Task<Result<void>> zero_in_data_file(uint64_t offset, uint64_t end, block::WriteFlags flags);
  io::Task<Result<void>> discard_in_data_file(uint64_t offset, uint64_t end);
  io::Task<Result<void>> punch_kept_clusters(uint64_t offset, uint64_t end);
  std::optional<uint64_t> released_entry(uint64_t entry, ClusterKind kind, Release how) const;
  std::optional<ExtendedEntry> released_subclusters(ExtendedEntry entry, uint64_t mask,
                                                    Release how) const;
  Result<bool> release_entries(SliceWords words, uint64_t offset, uint64_t end, Release how,
                               FreeReason reason);
  io::Task<Result<void>> zero_range(uint64_t offset, uint64_t end, Release how, FreeReason reason);
  io::Task<Result<uint64_t>> zero_step(uint64_t offset, uint64_t step_end, uint64_t end,
                                       Release how, FreeReason reason);
  io::Task<Result<bool>> zero_partial(uint64_t offset, uint64_t length, Release how);
  io::Task<Result<bool>> backing_reads_zero(uint64_t offset, uint64_t end);

  // reclaim.cc
  void start_reclaim();
  io::Task<void> reclaim();
  io::Task<Result<void>> reclaim_ranges(std::vector<FreedRange> ranges);
  io::Task<Result<void>> write_back_if_pressed();
  // Writes back and reclaims until nothing is left to do. No request is in flight.
  io::Task<Result<void>> settle();
  io::Task<Result<void>> end_file_with_sector();

  // resize.cc
  io::Task<Result<void>> grow(uint64_t size, block::Preallocation preallocation);
  io::Task<Result<void>> forget_beyond(uint64_t old_size, uint64_t new_size);
  io::Task<Result<void>> grow_mapping(uint64_t size);
  io::Task<Result<void>> zero_exposed(uint64_t old_size, uint64_t size);
  io::Task<Result<void>> preallocate(uint64_t from, uint64_t to,
                                     block::Preallocation preallocation);
  uint64_t mapped_end() const;
  io::Task<Result<void>> shrink(uint64_t size);
  io::Task<Result<void>> drop_tables(uint64_t first_l1_entry);
  io::Task<Result<void>> store_size(uint64_t size);
  io::Task<Result<void>> write_zeroes(uint64_t offset, uint64_t end);

  // bitmap_interface.cc
  Result<void> change_bitmaps(Result<void> changed);
  io::Task<Result<void>> store_bitmaps();

  // compact.cc
  io::Task<Result<void>> reload_tables();

  // amend.cc
  io::Task<Result<void>> rewrite_header(Header next);
  io::Task<Result<void>> upgrade();
  io::Task<Result<void>> change_data_file(std::string name, bool raw);
  io::Task<Result<void>> downgrade();
  io::Task<Result<void>> expand_zero_clusters();
  io::Task<Result<bool>> has_compressed_clusters();
  io::Task<Result<void>> set_lazy_refcounts(bool on);
  io::Task<Result<void>> change_refcount_order(unsigned order);
  io::Task<Result<void>> change_refcount_order_in(TableSwitch& tables, unsigned order);

  // snapshot_store.cc
  Result<void> check_snapshots_supported() const;
  io::Task<Result<void>> create_snapshot_in(TableSwitch& tables, Snapshot snapshot);
  io::Task<Result<void>> apply_snapshot_in(TableSwitch& tables, Snapshot snapshot);
  io::Task<Result<void>> delete_snapshot_in(TableSwitch& tables, Snapshot snapshot);
  io::Task<Result<void>> after_switch(const TableSwitch& tables, Result<void> result);
  // Replaces the tables in the file, and then what is held of them in memory.
  io::Task<Result<void>> switch_to(TableSwitch& tables, std::vector<uint64_t> l1,
                                   std::vector<Snapshot> snapshots, uint64_t size);

  Image image_;
  OpenOptions options_;
  CacheSizes caches_;
  base::OptionSet told_;  // what options_ and the caches were made from
  std::string state_directory_;
  std::unique_ptr<StateFile> state_;  // null: what is not on disk goes with the process
  std::atomic<uint64_t> size_;
  FreeQueue frees_;
  Refcounts refcounts_;
  Mapping mapping_;
  WriteBack writeback_;
  std::unique_ptr<CacheCleaner> cleaner_;  // null: it does not run
  InFlightAllocations in_flight_;
  std::atomic<bool> write_prepared_ = false;
  bool allocation_prepared_ = false;
  bool lazy_refcounts_ = false;
  bool no_io_ = false;  // tables were not loaded
  std::optional<crypto::LuksHeader> luks_;
  std::unique_ptr<Encryption> encryption_;  // null: nothing is encrypted, or no data is looked at
  PersistentBitmaps bitmaps_;
  std::vector<Snapshot> snapshots_;  // as on disk
  uint64_t snapshot_table_bytes_ = 0;
  enum class Sparse : uint8_t { kUnknown, kNo, kYes };
  std::atomic<Sparse> sparse_ = Sparse::kUnknown;  // as it was when first asked

  io::Gate background_;
  io::AsyncMutex reclaim_turn_;  // a reclaim from its start to its end; before maintenance_
  io::AsyncMutex maintenance_;   // reclaiming and resizing; before every other lock
  std::atomic<bool> reclaiming_ = false;

  CompressorPool compressors_;
  io::Turns compressed_turns_;
  std::atomic<bool> compressed_written_ = false;
  DecompressorPool decompressors_;
  std::mutex last_mutex_;
  std::shared_ptr<const LastDecompressed> last_;
};

}  // namespace platter::format::qcow2
