// Internal snapshots: taking, applying, deleting and showing them. Nothing else is in flight but
// the reclaiming task, which waits meanwhile.

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/try.h"
#include "format/qcow2/driver.h"
#include "format/qcow2/info.h"
#include "format/qcow2/table_switch.h"

namespace platter::format::qcow2 {
namespace {

// One more than the largest number among them.
std::string next_id(std::span<const Snapshot> snapshots) {
  uint64_t largest = 0;
  for (const Snapshot& snapshot : snapshots) {
    uint64_t number = 0;
    const char* end = snapshot.id.data() + snapshot.id.size();
    if (std::from_chars(snapshot.id.data(), end, number).ec == std::errc())
      largest = std::max(largest, number);
  }
  return std::to_string(largest + 1);
}

Result<Snapshot> find_by_id(std::span<const Snapshot> snapshots, std::string_view id) {
  const auto found = std::ranges::find(snapshots, id, &Snapshot::id);
  if (found == snapshots.end())
    return fail(ENOENT, fmt::format("There is no snapshot with id '{}'", id));
  return *found;
}

// The L1 table of a snapshot must cover the disk that it says it was taken of.
Result<void> check_shape(const Snapshot& snapshot, const Geometry& geometry) {
  PLATTER_TRY(check_snapshot_l1(snapshot, geometry));
  if (snapshot.disk_size % kSectorBytes != 0 || snapshot.disk_size > block::kMaxLength ||
      snapshot.l1_entries < geometry.l1_entries_for(snapshot.disk_size)) {
    return fail(EINVAL, fmt::format("snapshot {} ({}): L1 table is too small for a disk of {} "
                                    "bytes; snapshot table entry corrupted",
                                    snapshot.id, snapshot.name, snapshot.disk_size));
  }
  return {};
}

}  // namespace

std::vector<block::SnapshotInfo> Qcow2::snapshots() const {
  std::vector<block::SnapshotInfo> list;
  for (const Snapshot& snapshot : snapshots_) list.push_back(describe_snapshot(snapshot));
  return list;
}

Result<void> Qcow2::check_snapshots_supported() const {
  if (!image_.geometry.external_data) return {};
  return fail(ENOTSUP, "An image with a data file has no internal snapshots");
}

io::Task<Result<void>> Qcow2::switch_to(TableSwitch& tables, std::vector<uint64_t> l1,
                                        std::vector<Snapshot> snapshots, uint64_t new_size) {
  tables.settle_l1_flags(l1);
  PLATTER_CO_TRY(co_await tables.commit(l1, snapshots, new_size));
  {
    auto lock = co_await image_.allocation.lock();
    refcounts_.adopt(tables.refcount_table());
    mapping_.adopt(l1);
    snapshots_ = std::move(snapshots);
    PLATTER_CO_ASSIGN(const auto table, serialise_snapshot_table(snapshots_));
    snapshot_table_bytes_ = table.size();
    PLATTER_CO_TRY(co_await claim_structures());
  }
  {
    std::lock_guard lock(last_mutex_);
    last_.reset();
  }
  size_.store(image_.header.virtual_size(), std::memory_order_release);
  if (!options_.pass_discard_snapshot) co_return Result<void>{};
  for (const auto& range : tables.freed()) {
    // Advice: what the file cannot discard stays allocated in it.
    (void)co_await image_.file->discard(range.offset, range.bytes);
  }
  co_return Result<void>{};
}

// New tables may have been written even where they do not count: there the file is no longer fresh.
io::Task<Result<void>> Qcow2::after_switch(const TableSwitch& tables, Result<void> result) {
  auto lock = co_await image_.allocation.lock();
  refcounts_.file_reached(tables.written_end());
  co_return result;
}

// ---- Taking one

io::Task<Result<void>> Qcow2::create_snapshot(block::SnapshotInfo info) {
  PLATTER_CO_TRY(check_writable());
  PLATTER_CO_TRY(check_snapshots_supported());
  auto turn = co_await maintenance_.lock();
  PLATTER_CO_TRY(co_await settle());
  if (snapshots_.size() >= kMaxSnapshots) co_return fail(EFBIG, "Too many snapshots");
  Snapshot snapshot;
  snapshot.id = next_id(snapshots_);
  snapshot.name = std::move(info.name);
  snapshot.date_seconds = static_cast<uint32_t>(info.date_seconds);
  snapshot.date_nanoseconds = info.date_nanoseconds;
  snapshot.vm_clock_nanoseconds = info.vm_clock_nanoseconds;
  snapshot.vm_state_size = info.vm_state_size;
  snapshot.disk_size = size();
  snapshot.l1_entries = image_.header.l1_entries;
  if (info.icount) snapshot.icount = *info.icount;
  TableSwitch tables(image_);
  auto result = co_await create_snapshot_in(tables, std::move(snapshot));
  co_return co_await after_switch(tables, std::move(result));
}

io::Task<Result<void>> Qcow2::create_snapshot_in(TableSwitch& tables, Snapshot snapshot) {
  const Header& header = image_.header;
  // Every active L2 table may be copied, that its copied flags be cleared.
  PLATTER_CO_TRY(co_await tables.load((uint64_t{header.l1_entries} << header.cluster_bits) +
                                      2 * header.l1_bytes() + 2 * kMaxSnapshotTableBytes));
  PLATTER_CO_ASSIGN(auto l1, co_await tables.read_l1(header.l1_table_offset, header.l1_entries));
  // The state of the machine goes over to the snapshot: both would only copy it when it is written.
  std::vector<uint64_t> state(l1.size());
  if (snapshot.vm_state_size != 0) {
    const size_t first = std::min<size_t>(image_.geometry.l1_entries_for(size()), l1.size());
    std::swap_ranges(l1.begin() + static_cast<ptrdiff_t>(first), l1.end(),
                     state.begin() + static_cast<ptrdiff_t>(first));
  }
  PLATTER_CO_TRY(co_await tables.add_tree(l1));
  PLATTER_CO_TRY(co_await tables.settle_flags(l1, 2));
  snapshot.l1_table_offset = header.l1_table_offset;
  if (!l1.empty()) {
    PLATTER_CO_ASSIGN(snapshot.l1_table_offset, tables.allocate_table(header.l1_bytes()));
    for (size_t i = 0; i < l1.size(); ++i) state[i] |= l1[i];
    PLATTER_CO_TRY(co_await tables.write_l1(snapshot.l1_table_offset, state));
  }
  std::vector<Snapshot> next = snapshots_;
  next.push_back(std::move(snapshot));
  co_return co_await switch_to(tables, std::move(l1), std::move(next), header.size);
}

// ---- Applying one

io::Task<Result<void>> Qcow2::apply_snapshot(std::string id) {
  PLATTER_CO_TRY(check_writable());
  PLATTER_CO_TRY(check_snapshots_supported());
  // They would have to record everything in which the snapshot differs.
  if (!bitmaps_.empty()) co_return fail(EBUSY, "Device has active dirty bitmaps");
  auto turn = co_await maintenance_.lock();
  PLATTER_CO_ASSIGN(auto snapshot, find_by_id(snapshots_, id));
  PLATTER_CO_TRY(check_shape(snapshot, image_.geometry));
  {
    auto lock = co_await image_.allocation.lock();
    PLATTER_CO_TRY(co_await prepare_write());
  }
  PLATTER_CO_TRY(co_await settle());
  TableSwitch tables(image_);
  auto result = co_await apply_snapshot_in(tables, std::move(snapshot));
  co_return co_await after_switch(tables, std::move(result));
}

io::Task<Result<void>> Qcow2::apply_snapshot_in(TableSwitch& tables, Snapshot snapshot) {
  const Header& header = image_.header;
  const uint64_t l1_bytes = uint64_t{snapshot.l1_entries} * kTableEntryBytes;
  PLATTER_CO_TRY(co_await tables.load((uint64_t{snapshot.l1_entries} << header.cluster_bits) +
                                      l1_bytes + 2 * kMaxSnapshotTableBytes));
  PLATTER_CO_ASSIGN(auto old, co_await tables.read_l1(header.l1_table_offset, header.l1_entries));
  PLATTER_CO_ASSIGN(auto l1,
                    co_await tables.read_l1(snapshot.l1_table_offset, snapshot.l1_entries));
  // What both use is never without a reference.
  PLATTER_CO_TRY(co_await tables.add_tree(l1));
  PLATTER_CO_TRY(co_await tables.drop_tree(std::move(old)));
  PLATTER_CO_TRY(co_await tables.settle_flags(l1, 1));
  co_return co_await switch_to(tables, std::move(l1), snapshots_, snapshot.disk_size);
}

// ---- Deleting one

io::Task<Result<void>> Qcow2::delete_snapshot(std::string id) {
  PLATTER_CO_TRY(check_writable());
  auto turn = co_await maintenance_.lock();
  PLATTER_CO_ASSIGN(auto snapshot, find_by_id(snapshots_, id));
  PLATTER_CO_TRY(check_snapshot_l1(snapshot, image_.geometry));
  PLATTER_CO_TRY(co_await settle());
  TableSwitch tables(image_);
  auto result = co_await delete_snapshot_in(tables, std::move(snapshot));
  co_return co_await after_switch(tables, std::move(result));
}

io::Task<Result<void>> Qcow2::delete_snapshot_in(TableSwitch& tables, Snapshot snapshot) {
  const Header& header = image_.header;
  std::vector<Snapshot> left = snapshots_;
  left.erase(std::ranges::find(left, snapshot.id, &Snapshot::id));
  // Active L2 tables that are now ours alone get their copied flags back, in copies.
  PLATTER_CO_TRY(co_await tables.load((uint64_t{header.l1_entries} << header.cluster_bits) +
                                      header.l1_bytes() + kMaxSnapshotTableBytes));
  PLATTER_CO_ASSIGN(auto old,
                    co_await tables.read_l1(snapshot.l1_table_offset, snapshot.l1_entries));
  PLATTER_CO_TRY(co_await tables.drop_tree(std::move(old)));
  PLATTER_CO_TRY(tables.drop_table(snapshot.l1_table_offset,
                                   uint64_t{snapshot.l1_entries} * kTableEntryBytes));
  PLATTER_CO_ASSIGN(auto l1, co_await tables.read_l1(header.l1_table_offset, header.l1_entries));
  PLATTER_CO_TRY(co_await tables.settle_flags(l1, 1));
  co_return co_await switch_to(tables, std::move(l1), std::move(left), header.size);
}

// ---- Showing one

io::Task<Result<void>> Qcow2::load_snapshot(std::string id) {
  if (image_.writable || no_io_)
    co_return fail(EINVAL, "A snapshot can only be shown by an image that is open for reading");
  PLATTER_CO_ASSIGN(const auto snapshot, find_by_id(snapshots_, id));
  PLATTER_CO_TRY(check_shape(snapshot, image_.geometry));
  image_.header.l1_table_offset = snapshot.l1_table_offset;
  image_.header.l1_entries = snapshot.l1_entries;
  image_.header.size = snapshot.disk_size;
  mapping_.cache().clear();
  PLATTER_CO_TRY(co_await mapping_.load());
  size_.store(snapshot.disk_size, std::memory_order_release);
  co_return Result<void>{};
}

}  // namespace platter::format::qcow2
