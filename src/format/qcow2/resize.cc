// Growing and shrinking. Nothing else is in flight but the reclaiming task, which waits meanwhile.

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/bytes.h"
#include "base/try.h"
#include "format/qcow2/driver.h"
#include "format/qcow2/plan.h"

namespace platter::format::qcow2 {
namespace {
constexpr uint64_t kPreallocationStep = uint64_t{64} << 20;
constexpr uint64_t kZeroBufferBytes = uint64_t{1} << 20;
}  // namespace

io::Task<Result<void>> Qcow2::resize(uint64_t new_size, block::Preallocation preallocation, bool) {
  PLATTER_CO_TRY(check_writable());
  if (new_size % kSectorBytes != 0) {
    co_return fail(EINVAL, fmt::format("The new size must be a multiple of {}", kSectorBytes));
  }
  if (new_size > block::kMaxLength) co_return fail(EFBIG, "The new size is too large");
  if (image_.header.snapshot_count != 0 && image_.geometry.version < 3) {
    co_return fail(ENOTSUP, "Can't resize a version 2 image which has snapshots");
  }
  const uint64_t old_size = size();
  if (new_size < old_size && preallocation != block::Preallocation::kOff) {
    co_return fail(EINVAL, "Preallocation can't be used for shrinking an image");
  }
  auto turn = co_await maintenance_.lock();
  {
    auto lock = co_await image_.allocation.lock();
    if (new_size != old_size) PLATTER_CO_TRY(co_await bitmaps_.prepare_resize(new_size));
    PLATTER_CO_TRY(co_await prepare_allocation());
  }
  Result<void> resized;
  if (new_size < old_size) resized = co_await shrink(new_size);
  if (new_size > old_size) resized = co_await grow(new_size, preallocation);
  bitmaps_.resize(size());
  co_return resized;
}

io::Task<Result<void>> Qcow2::grow(uint64_t new_size, block::Preallocation preallocation) {
  const Geometry& geometry = image_.geometry;
  const uint64_t old_size = size();
  PLATTER_CO_TRY(co_await forget_beyond(old_size, new_size));
  PLATTER_CO_TRY(co_await grow_mapping(new_size));
  PLATTER_CO_TRY(co_await zero_exposed(old_size, new_size));
  // What a raw data file gains is the guest's.
  if (image_.has_raw_data_file() && preallocation == block::Preallocation::kOff)
    preallocation = block::Preallocation::kMetadata;
  if (preallocation != block::Preallocation::kOff) {
    const uint64_t from = geometry.clusters_for(old_size) << geometry.cluster_bits;
    // A data file ends where the disk does.
    const uint64_t to = geometry.external_data
                            ? new_size
                            : geometry.clusters_for(new_size) << geometry.cluster_bits;
    if (from < to) PLATTER_CO_TRY(co_await preallocate(from, to, preallocation));
  }
  if (geometry.external_data && image_.data->size() < new_size)
    PLATTER_CO_TRY(co_await image_.data->resize(new_size, block::Preallocation::kOff, false));
  PLATTER_CO_TRY(co_await writeback_.flush());
  co_return co_await store_size(new_size);
}

// A shrink that was cut short has left clusters beyond the end.
io::Task<Result<void>> Qcow2::forget_beyond(uint64_t old_size, uint64_t new_size) {
  const Geometry& geometry = image_.geometry;
  const uint64_t from = geometry.clusters_for(old_size) << geometry.cluster_bits;
  const uint64_t tables = geometry.l1_entries_for(new_size);
  const uint64_t to = tables <= mapping_.l1_entries()
                          ? geometry.clusters_for(new_size) << geometry.cluster_bits
                          : mapping_.l1_entries() * geometry.l2_coverage();
  if (from >= to) co_return Result<void>{};
  co_return co_await zero_range(from, to, Release::kToBacking, FreeReason::kOther);
}

// An L1 table that covers `new_size`.
io::Task<Result<void>> Qcow2::grow_mapping(uint64_t new_size) {
  const uint64_t entries = image_.geometry.l1_entries_for(new_size);
  if (entries <= mapping_.l1_entries()) co_return Result<void>{};
  Mapping::NewL1 next;
  {
    auto lock = co_await image_.allocation.lock();
    PLATTER_CO_ASSIGN(next, co_await mapping_.prepare_l1(entries));
  }
  PLATTER_CO_TRY(co_await writeback_.flush_all());
  auto lock = co_await image_.allocation.lock();
  co_return co_await mapping_.adopt_l1(std::move(next));
}

// What comes into sight reads as zeroes: the rest of the last cluster, and what a longer backing
// file has there.
io::Task<Result<void>> Qcow2::zero_exposed(uint64_t old_size, uint64_t new_size) {
  const Geometry& geometry = image_.geometry;
  const uint64_t first_new = geometry.clusters_for(old_size) << geometry.cluster_bits;
  const uint64_t edge = std::min(first_new, new_size);
  for (uint64_t at = old_size; at < edge;) {
    PLATTER_CO_ASSIGN(const Run run, co_await mapping_.lookup(at, edge - at));
    if (!run_reads_zero(run.kind, at)) PLATTER_CO_TRY(co_await write_zeroes(at, at + run.length));
    at += run.length;
  }
  const block::Child* backing = image_.node->backing();
  if (backing == nullptr || backing->size() <= first_new) co_return Result<void>{};
  const uint64_t end =
      std::min(geometry.clusters_for(backing->size()), geometry.clusters_for(new_size))
      << geometry.cluster_bits;
  if (first_new >= end) co_return Result<void>{};
  if (geometry.version >= 3)
    co_return co_await zero_range(first_new, end, Release::kToZero, FreeReason::kOther);
  co_return co_await write_zeroes(first_new, end);
}

io::Task<Result<void>> Qcow2::write_zeroes(uint64_t offset, uint64_t end) {
  io::AlignedBuffer zeroes(std::min(end - offset, kZeroBufferBytes));
  zeroes.view().fill_zero();
  while (offset < end) {
    const size_t length = std::min<uint64_t>(end - offset, zeroes.size());
    PLATTER_CO_TRY(co_await write_slow(offset, zeroes.view(0, length)));
    offset += length;
  }
  co_return Result<void>{};
}

// Maps every cluster of [from, to). Their host clusters read as zeroes and lie within the file
// before they are mapped; with falloc and full it has room for them.
io::Task<Result<void>> Qcow2::preallocate(uint64_t from, uint64_t to,
                                          block::Preallocation preallocation) {
  const Geometry& geometry = image_.geometry;
  // Zeroes that are encrypted have to be written.
  if (encryption_ != nullptr) co_return co_await write_zeroes(from, to);
  const auto in_file =
      preallocation == block::Preallocation::kMetadata ? block::Preallocation::kOff : preallocation;
  while (from < to) {
    PLATTER_CO_TRY(co_await write_back_if_pressed());
    Plan plan;
    {
      auto lock = co_await image_.allocation.lock();
      const uint64_t step = std::min(to - from, kPreallocationStep);
      PLATTER_CO_ASSIGN(const bool planned, co_await plan_allocation(plan, from, step));
      // Subclusters stay what they are, with a host cluster to go to.
      plan.end = plan.begin;
      if (!planned)
        co_return fail(EIO, "qcow2: Clusters beyond the end of the disk are allocated already");
    }
    const uint64_t bytes = plan.run.clusters << geometry.cluster_bits;
    uint64_t run_end = plan.run.offset + bytes;
    if (geometry.external_data) run_end = std::min(run_end, to);
    block::Child& file = *image_.data;
    Result<void> placed{};
    // Nobody reads what no subcluster shows, but for a raw data file.
    const bool is_read = !geometry.extended_l2 || image_.has_raw_data_file();
    if (is_read && (!plan.run.fresh || file.size() > plan.run.offset)) {
      placed = co_await file.zero(
          plan.run.offset,
          std::min(run_end, std::max(file.size(), plan.run.offset)) - plan.run.offset);
    }
    // Before anything names them: a mapping past the end of the file is damage.
    if (placed && file.size() < run_end) {
      placed = co_await file.resize(run_end, in_file, false);
    }
    auto lock = co_await image_.allocation.lock();
    if (placed) placed = co_await link(plan);
    if (!placed) {
      co_await abandon(plan, plan.linked);
      co_return placed;
    }
    from += bytes;
  }
  co_return Result<void>{};
}

// The new size first: a cut in power then leaves clusters beyond the end, which forget_beyond()
// lets go of.
io::Task<Result<void>> Qcow2::shrink(uint64_t new_size) {
  const Geometry& geometry = image_.geometry;
  const uint64_t from = geometry.clusters_for(new_size) << geometry.cluster_bits;
  const uint64_t to = mapped_end();
  PLATTER_CO_TRY(co_await writeback_.flush());
  PLATTER_CO_TRY(co_await store_size(new_size));
  if (from < to)
    PLATTER_CO_TRY(co_await zero_range(from, to, Release::kToBacking, FreeReason::kShrink));
  PLATTER_CO_TRY(co_await drop_tables(geometry.l1_entries_for(new_size)));
  if (!geometry.external_data || image_.data->size() <= new_size) co_return Result<void>{};
  co_return co_await image_.data->resize(new_size, block::Preallocation::kOff, false);
}

// Behind everything that the tables may map: the state of a machine lies past the disk.
uint64_t Qcow2::mapped_end() const {
  const Geometry& geometry = image_.geometry;
  const uint64_t disk = geometry.clusters_for(size()) << geometry.cluster_bits;
  if (geometry.external_data) return disk;
  return std::max(disk, mapping_.l1_entries() * geometry.l2_coverage());
}

// Lets go of L2 tables that map nothing, and of the end of the file that is free then.
io::Task<Result<void>> Qcow2::drop_tables(uint64_t first_l1_entry) {
  PLATTER_CO_TRY(co_await settle());
  co_await image_.file->pass(block::DebugEvent::kL1ShrinkWriteTable);
  co_await image_.file->pass(block::DebugEvent::kL1ShrinkFreeL2Clusters);
  {
    auto lock = co_await image_.allocation.lock();
    mapping_.drop_tables(first_l1_entry);
  }
  PLATTER_CO_TRY(co_await settle());
  uint64_t host_end;
  {
    auto lock = co_await image_.allocation.lock();
    PLATTER_CO_TRY(co_await refcounts_.drop_empty_blocks());
    PLATTER_CO_ASSIGN(const uint64_t clusters, co_await refcounts_.end_of_used());
    host_end = clusters << image_.geometry.cluster_bits;
  }
  PLATTER_CO_TRY(co_await settle());
  if (image_.file->size() > host_end) {
    auto cut = co_await image_.file->resize(host_end, block::Preallocation::kOff, false);
    if (!cut) {
      image_.log->warning("Failed to truncate the tail of the image: " + cut.error().message());
    }
    auto lock = co_await image_.allocation.lock();
    refcounts_.file_was_cut();
  }
  co_return Result<void>{};
}

io::Task<Result<void>> Qcow2::store_size(uint64_t new_size) {
  // Where it fails the old size counts: what follows must not depend on which of them is there.
  std::array<uint8_t, 8> before;
  std::array<uint8_t, 8> after;
  base::store_big<uint64_t>(before, 0, image_.header.size);
  base::store_big<uint64_t>(after, 0, new_size);
  PLATTER_CO_TRY(co_await image_.replace_header_fields(field::kSize, before, after));
  image_.header.size = new_size;
  size_.store(new_size, std::memory_order_release);
  co_return Result<void>{};
}

}  // namespace platter::format::qcow2
