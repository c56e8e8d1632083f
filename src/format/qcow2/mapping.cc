#include "format/qcow2/mapping.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <memory>

#include "base/try.h"
#include "format/qcow2/free_queue.h"
#include "format/qcow2/metadata_io.h"
#include "format/qcow2/refcounts.h"

namespace platter::format::qcow2 {

using block::DebugEvent;

namespace {

// Whether an entry is one that we can act on.
ClusterKind checked_kind(uint64_t entry, const Cluster& cluster) {
  if (cluster.kind != ClusterKind::kCompressed && (entry & kL2ReservedMask) != 0)
    return ClusterKind::kInvalid;
  return cluster.kind;
}

// How many entries from `index` on continue what `entry` begins, itself included. `get` gives
// words in host order.
template <typename Get>
size_t run_length(Get get, size_t index, size_t limit, uint64_t entry, ClusterKind kind,
                  uint64_t cluster_size) {
  size_t count = 1;
  if (kind == ClusterKind::kCompressed || kind == ClusterKind::kInvalid) return count;
  const uint64_t step = has_host(kind) ? cluster_size : 0;
  uint64_t expected = entry + step;
  while (index + count < limit && get(index + count) == expected) {
    ++count;
    expected += step;
  }
  return count;
}

template <typename Get>
Run decode_run(Get get, size_t index, size_t limit, uint64_t offset, uint64_t max_length,
               const Geometry& geometry) {
  const uint64_t entry = get(index);
  const Cluster cluster = decode_l2_entry(entry, geometry);
  const uint64_t in_cluster = geometry.offset_in_cluster(offset);
  Run run;
  run.kind = checked_kind(entry, cluster);
  run.copied = cluster.copied;
  run.entry = entry;
  run.host_offset = cluster.host_offset + in_cluster;
  // One cluster is the common case: look no further.
  if (max_length <= geometry.cluster_size() - in_cluster) {
    run.length = max_length;
    return run;
  }
  const uint64_t wanted = geometry.clusters_for(in_cluster + max_length);
  limit = std::min<uint64_t>(limit, index + wanted);
  const size_t clusters = run_length(get, index, limit, entry, run.kind, geometry.cluster_size());
  run.length = std::min((uint64_t{clusters} << geometry.cluster_bits) - in_cluster, max_length);
  return run;
}

// How many subclusters from `first` on are `kind`, as the one there is.
unsigned subclusters_alike(const ExtendedEntry& entry, unsigned first, ClusterKind kind) {
  uint64_t alike = 0;
  switch (kind) {
    case ClusterKind::kNormal: alike = entry.allocated(); break;
    case ClusterKind::kZero:
    case ClusterKind::kZeroAllocated: alike = entry.zeroes(); break;
    case ClusterKind::kUnallocated:
    case ClusterKind::kReserved: alike = ~(entry.allocated() | entry.zeroes()); break;
    case ClusterKind::kCompressed:
    case ClusterKind::kInvalid: alike = kAllSubclusters; break;
  }
  return std::min(static_cast<unsigned>(std::countr_one(alike >> first)), kSubclusters - first);
}

template <typename Get>
Run decode_extended_run(Get get, size_t index, size_t limit, uint64_t offset, uint64_t max_length,
                        const Geometry& geometry) {
  const uint64_t in_cluster = geometry.offset_in_cluster(offset);
  ExtendedEntry entry = {get(2 * index), get(2 * index + 1)};
  const unsigned first = geometry.subcluster_index(offset);
  const Cluster cluster = decode_subcluster(entry, first, geometry);
  Run run;
  run.kind = checked_kind(entry.entry, cluster);
  run.copied = cluster.copied;
  run.entry = entry.entry;
  run.host_offset = cluster.host_offset + in_cluster;
  const bool may_go_on = run.kind != ClusterKind::kCompressed && run.kind != ClusterKind::kInvalid;
  const uint64_t step = has_host(run.kind) ? geometry.cluster_size() : 0;
  uint64_t clusters = 0;  // whole ones, the first one included
  unsigned end = first + subclusters_alike(entry, first, run.kind);
  while (may_go_on && end == kSubclusters) {
    ++clusters;
    end = 0;
    if (((clusters << geometry.cluster_bits) - in_cluster) >= max_length || ++index == limit) break;
    const uint64_t expected = entry.entry + step;
    entry = {get(2 * index), get(2 * index + 1)};
    if (entry.entry != expected || decode_subcluster(entry, 0, geometry).kind != run.kind) break;
    end = subclusters_alike(entry, 0, run.kind);
  }
  const uint64_t found = (clusters << geometry.cluster_bits) +
                         (uint64_t{end} << geometry.subcluster_bits()) - in_cluster;
  run.length = std::min(found, max_length);
  return run;
}

template <typename Get>
Run decode_any_run(Get get, size_t index, size_t limit, uint64_t offset, uint64_t max_length,
                   const Geometry& geometry) {
  Run run = geometry.extended_l2
                ? decode_extended_run(get, index, limit, offset, max_length, geometry)
                : decode_run(get, index, limit, offset, max_length, geometry);
  const bool elsewhere = has_host(run.kind) && run.host_offset != offset;
  if (geometry.external_data && (elsewhere || run.kind == ClusterKind::kCompressed))
    run.kind = ClusterKind::kInvalid;
  return run;
}

bool continues(const Run& run, const Run& next) {
  if (run.kind != next.kind || run.copied != next.copied || run.kind == ClusterKind::kCompressed)
    return false;
  return !has_host(run.kind) || run.host_offset + run.length == next.host_offset;
}

}  // namespace

Mapping::Mapping(Image& image, Refcounts& refcounts, FreeQueue& frees, TableCache::Config cache)
    : image_(image),
      refcounts_(refcounts),
      frees_(frees),
      cache_(cache),
      plain_(!image.geometry.extended_l2 && !image.geometry.external_data) {
  measure_slices();
}

void Mapping::measure_slices() {
  slice_entries_ = cache_.slice_words() / image_.geometry.l2_entry_words();
  slice_shift_ =
      image_.geometry.cluster_bits + static_cast<unsigned>(std::countr_zero(slice_entries_));
}

void Mapping::renew_cache(TableCache::Config cache) {
  std::destroy_at(&cache_);
  std::construct_at(&cache_, cache);
  measure_slices();
  dirty_.leave_state();
}

io::Task<Result<void>> Mapping::load() {
  const uint64_t bytes = image_.header.l1_bytes();
  l1_entries_ = image_.header.l1_entries;
  l1_ = std::make_unique<std::atomic<uint64_t>[]>(l1_entries_);
  // A table may be written in whole units: room for them is within its last cluster.
  dirty_.reset(bytes, image_.metadata_unit);
  if (bytes == 0) {
    dirty_.table_is_at(image_.header.l1_table_offset, *image_.log);
    co_return Result<void>{};
  }
  io::AlignedBuffer buffer(bytes);
  PLATTER_CO_TRY(co_await read_padded(*image_.file, image_.header.l1_table_offset, buffer.view()));
  for (uint64_t i = 0; i < l1_entries_; ++i)
    l1_[i] = base::load_big<uint64_t>(buffer.span(), i * 8);
  dirty_.table_is_at(image_.header.l1_table_offset, *image_.log);
  co_return Result<void>{};
}

void Mapping::keep_in(SliceState& slices, TableState& l1) {
  cache_.keep_in(slices);
  dirty_.keep_in(l1, [this](uint64_t index) { return index < l1_entries_ ? load_l1(index) : 0; });
}

std::optional<Run> Mapping::try_lookup(uint64_t offset, uint64_t max_length) const {
  Run run;
  const bool valid = cache_.read(key_of(offset), [&](SliceWords words) {
    const auto get = [&](size_t i) { return words.get(i); };
    const size_t index = index_in_slice(offset);
    run = plain_ ? decode_run(get, index, words.size(), offset, max_length, image_.geometry)
                 : decode_any_run(get, index, slice_entries_, offset, max_length, image_.geometry);
  });
  if (!valid) return std::nullopt;
  return run;
}

// The host offset of the L2 table that entry `index` names, or 0.
io::Task<Result<uint64_t>> Mapping::check_l1(uint64_t index) {
  if (l1_ == nullptr) co_return fail(EIO, "qcow2: The image was opened without its tables");
  const uint64_t entry = index < l1_entries_ ? load_l1(index) : 0;
  const uint64_t offset = entry & kOffsetMask;
  if ((entry & kL1ReservedMask) != 0 || !image_.geometry.is_aligned(offset)) {
    co_return std::unexpected(co_await image_.corruption(
        fmt::format("L2 table offset {:#x} unaligned (L1 index: {:#x})", entry, index)));
  }
  co_return offset;
}

io::Task<Result<Run>> Mapping::report_invalid(uint64_t offset, Run run) {
  const Geometry& geometry = image_.geometry;
  if (geometry.external_data && (run.entry & kCompressedFlag) != 0) {
    co_return std::unexpected(co_await image_.corruption(
        fmt::format("Compressed cluster entry found in image with external data file (guest "
                    "offset: {:#x}, entry: {:#x})",
                    offset, run.entry)));
  }
  const uint64_t host = run.entry & kOffsetMask;
  if (geometry.external_data && (run.entry & kL2ReservedMask) == 0 && geometry.is_aligned(host) &&
      host != geometry.align_down(offset)) {
    co_return std::unexpected(co_await image_.corruption(
        fmt::format("External data file host cluster offset {:#x} does not match guest cluster "
                    "offset: {:#x}",
                    host, geometry.align_down(offset))));
  }
  const char* what = geometry.version < 3 && (run.entry & kZeroFlag) != 0
                         ? "Zero cluster entry found in pre-v3 image"
                         : "Invalid cluster entry found";
  co_return std::unexpected(co_await image_.corruption(
      fmt::format("{} (guest offset: {:#x}, entry: {:#x})", what, offset, run.entry)));
}

io::Task<Result<Run>> Mapping::lookup(uint64_t offset, uint64_t max_length) {
  if (auto run = try_lookup(offset, max_length)) {
    if (run->kind == ClusterKind::kInvalid) co_return co_await report_invalid(offset, *run);
    co_return *run;
  }
  const Geometry& geometry = image_.geometry;
  PLATTER_CO_ASSIGN(const uint64_t table, co_await check_l1(geometry.l1_index(offset)));
  if (table == 0) {
    const uint64_t rest = geometry.l2_coverage() - (offset & (geometry.l2_coverage() - 1));
    co_return Run{.kind = ClusterKind::kUnallocated, .length = std::min(rest, max_length)};
  }
  const uint64_t key = key_of(offset);
  const uint64_t in_table = (geometry.l2_index(offset) / slice_entries_) * cache_.slice_bytes();
  const TableCache::Place place(l1_[geometry.l1_index(offset)], in_table);
  PLATTER_CO_ASSIGN(auto pin, co_await cache_.acquire(key, image_.file, place));
  Run run;
  pin.look([&](SliceWords words) {
    run = decode_any_run([&](size_t i) { return words.get(i); }, index_in_slice(offset),
                         slice_entries_, offset, max_length, geometry);
  });
  if (run.kind == ClusterKind::kInvalid) co_return co_await report_invalid(offset, run);
  co_return run;
}

// A whole table at once. Slices in the cache win over the disk, and are looked at first: one that
// is not cached then was as it is on disk.
io::Task<Result<Run>> Mapping::lookup_table(uint64_t offset, uint64_t max_length,
                                            uint64_t table_offset) {
  const Geometry& geometry = image_.geometry;
  const uint64_t table_bytes = geometry.cluster_size();
  const uint64_t slices = table_bytes / cache_.slice_bytes();
  const uint64_t first_key = key_of(offset & ~(geometry.l2_coverage() - 1));
  io::AlignedBuffer cached(table_bytes), table(table_bytes);
  std::vector<bool> present(slices);
  bool all = true;
  for (uint64_t i = 0; i < slices; ++i) {
    present[i] = cache_.copy_if_cached(
        first_key + i, cached.span().subspan(i * cache_.slice_bytes(), cache_.slice_bytes()));
    all = all && present[i];
  }
  if (!all) PLATTER_CO_TRY(co_await read_padded(*image_.file, table_offset, table.view()));
  for (uint64_t i = 0; i < slices; ++i) {
    if (!present[i]) continue;
    std::memcpy(table.data() + i * cache_.slice_bytes(), cached.data() + i * cache_.slice_bytes(),
                cache_.slice_bytes());
  }
  const auto get = [&](size_t i) {
    uint64_t word;
    std::memcpy(&word, table.data() + i * 8, 8);
    return base::from_big_endian(word);
  };
  const Run run = decode_any_run(get, geometry.l2_index(offset), geometry.l2_entries(), offset,
                                 max_length, geometry);
  if (run.kind == ClusterKind::kInvalid) co_return co_await report_invalid(offset, run);
  co_return run;
}

io::Task<Result<Run>> Mapping::lookup_long(uint64_t offset, uint64_t max_length) {
  const Geometry& geometry = image_.geometry;
  std::optional<Run> result;
  while (!result || result->length < max_length) {
    const uint64_t done = result ? result->length : 0;
    const uint64_t at = offset + done;
    const uint64_t in_table = geometry.l2_coverage() - (at & (geometry.l2_coverage() - 1));
    const uint64_t wanted = std::min(max_length - done, in_table);
    auto run = try_lookup(at, wanted);
    if (!run || run->kind == ClusterKind::kInvalid) {
      const bool whole = wanted > slice_coverage();
      PLATTER_CO_ASSIGN(const uint64_t table, co_await check_l1(geometry.l1_index(at)));
      auto found = whole && table != 0 ? co_await lookup_table(at, wanted, table)
                                       : co_await lookup(at, wanted);
      if (!found) co_return std::unexpected(std::move(found).error());
      run = *found;
    }
    if (!result) {
      result = run;
    } else if (continues(*result, *run)) {
      result->length += run->length;
    } else {
      break;
    }
    if (result->kind == ClusterKind::kCompressed) break;
  }
  co_return *result;
}

io::Task<Result<void>> Mapping::ensure_table(uint64_t offset) {
  const Geometry& geometry = image_.geometry;
  const uint64_t index = geometry.l1_index(offset);
  PLATTER_ASSERT(index < l1_entries_);
  PLATTER_CO_ASSIGN(const uint64_t old_table, co_await check_l1(index));
  if (old_table != 0 && (load_l1(index) & kCopiedFlag) != 0) co_return Result<void>{};

  PLATTER_CO_ASSIGN(const HostRun run, co_await refcounts_.allocate(1));
  io::AlignedBuffer table(geometry.cluster_size());
  Result<void> made{};
  if (old_table == 0) {
    table.view().fill_zero();
  } else {
    // Shared with a snapshot. Its cached slices are clean: what is shared is never modified.
    co_await image_.file->pass(DebugEvent::kL2AllocCowRead);
    made = co_await read_padded(*image_.file, old_table, table.view());
  }
  if (made) {
    co_await image_.file->pass(DebugEvent::kL2AllocWrite);
    made = co_await image_.file->write(run.offset, table.view());
  }
  if (!made) {
    PLATTER_CO_TRY(co_await refcounts_.release(run.offset, 1));
    co_return std::unexpected(std::move(made).error());
  }
  image_.guard.claim(kActiveL2, run.offset, geometry.cluster_size());
  l1_[index].store(run.offset | kCopiedFlag, std::memory_order_release);
  dirty_.mark(index * kTableEntryBytes);
  if (old_table != 0) frees_.add(old_table, 1, FreeReason::kOther);
  image_.changed(kUndurableNewTables);
  co_return Result<void>{};
}

io::Task<Result<TableCache::Pin>> Mapping::writable_slice(uint64_t offset) {
  PLATTER_CO_TRY(co_await ensure_table(offset));
  const uint64_t key = key_of(offset);
  co_return co_await cache_.acquire(key, image_.file, slice_host_offset(key));
}

io::Task<Result<ExtendedEntry>> Mapping::entry_at(uint64_t offset) {
  const Geometry& geometry = image_.geometry;
  PLATTER_CO_ASSIGN(const uint64_t table, co_await check_l1(geometry.l1_index(offset)));
  if (table == 0) co_return ExtendedEntry{};
  const uint64_t key = key_of(offset);
  PLATTER_CO_ASSIGN(auto pin, co_await cache_.acquire(key, image_.file, slice_host_offset(key)));
  const size_t word = index_in_slice(offset) * geometry.l2_entry_words();
  // Nobody changes it meanwhile: the caller holds the mutex.
  const SliceWords words = pin.words();
  co_return ExtendedEntry{words.get(word), geometry.extended_l2 ? words.get(word + 1) : 0};
}

uint64_t Mapping::slice_host_offset(uint64_t key) const {
  const uint64_t offset = key << slice_shift_;
  const uint64_t table = load_l1(image_.geometry.l1_index(offset)) & kOffsetMask;
  PLATTER_ASSERT(table != 0);
  return table + (image_.geometry.l2_index(offset) / slice_entries_) * cache_.slice_bytes();
}

void Mapping::take_dirty_l1(std::vector<uint8_t>& staging, std::vector<StagedWrite>& writes) {
  const uint64_t unit = dirty_.unit_bytes();
  for (uint32_t index : dirty_.take()) {
    const size_t position = staging.size();
    staging.resize(position + unit);  // past the last entry: zeroes
    for (uint64_t i = 0; i < unit / 8 && index * unit / 8 + i < l1_entries_; ++i) {
      base::store_big<uint64_t>(staging, position + i * 8, load_l1(index * unit / 8 + i));
    }
    writes.push_back({image_.header.l1_table_offset + index * unit, position, unit});
  }
}

void Mapping::end_l1_write(std::span<const StagedWrite> writes, std::span<const uint8_t> staging,
                           bool written) {
  dirty_.end_write(image_.header.l1_table_offset, writes, staging, written);
}

io::Task<Result<Mapping::NewL1>> Mapping::prepare_l1(uint64_t entries) {
  const Geometry& geometry = image_.geometry;
  PLATTER_ASSERT(entries > l1_entries_);
  if (entries > kMaxL1TableBytes / kTableEntryBytes) {
    co_return fail(EFBIG, "Failed to grow the L1 table: File too large");
  }
  co_await image_.file->pass(DebugEvent::kL1GrowAllocTable);
  NewL1 next{.table = std::make_unique<std::atomic<uint64_t>[]>(entries), .entries = entries};
  next.clusters = geometry.clusters_for(entries * kTableEntryBytes);
  PLATTER_CO_ASSIGN(const HostRun run, co_await refcounts_.allocate_contiguous(next.clusters));
  next.host_offset = run.offset;
  io::AlignedBuffer content(next.clusters << geometry.cluster_bits);
  content.view().fill_zero();
  for (uint64_t i = 0; i < l1_entries_; ++i) {
    next.table[i] = load_l1(i);
    base::store_big<uint64_t>(content.span(), i * 8, load_l1(i));
  }
  co_await image_.file->pass(DebugEvent::kL1GrowWriteTable);
  auto written = co_await image_.file->write(run.offset, content.view());
  if (!written) {
    PLATTER_CO_TRY(co_await refcounts_.release(run.offset, run.clusters));
    co_return std::unexpected(std::move(written).error());
  }
  image_.changed(kUndurableNewTables);
  co_return next;
}

io::Task<Result<void>> Mapping::adopt_l1(NewL1 next) {
  const auto fields = [](uint64_t entries, uint64_t offset) {
    std::array<uint8_t, 12> bytes;
    base::store_big<uint32_t>(bytes, 0, static_cast<uint32_t>(entries));
    base::store_big<uint64_t>(bytes, 4, offset);
    return bytes;
  };
  co_await image_.file->pass(DebugEvent::kL1GrowActivateTable);
  auto adopted = co_await image_.replace_header_fields(
      field::kL1Entries, fields(l1_entries_, image_.header.l1_table_offset),
      fields(next.entries, next.host_offset));
  if (!adopted) {
    if (!image_.corrupt)
      PLATTER_CO_TRY(co_await refcounts_.release(next.host_offset, next.clusters));
    co_return adopted;
  }
  const uint64_t old_clusters = image_.geometry.clusters_for(image_.header.l1_bytes());
  if (old_clusters != 0)
    frees_.add(image_.header.l1_table_offset, old_clusters, FreeReason::kOther);
  l1_ = std::move(next.table);
  l1_entries_ = next.entries;
  image_.header.l1_entries = static_cast<uint32_t>(next.entries);
  image_.header.l1_table_offset = next.host_offset;
  image_.guard.claim(kActiveL1, next.host_offset, image_.header.l1_bytes());
  dirty_.reset(next.entries * kTableEntryBytes, image_.metadata_unit);
  dirty_.table_is_at(next.host_offset, *image_.log);
  image_.changed(0);
  co_return Result<void>{};
}

void Mapping::adopt(std::span<const uint64_t> l1) {
  cache_.clear();
  l1_entries_ = l1.size();
  l1_ = std::make_unique<std::atomic<uint64_t>[]>(l1_entries_);
  for (size_t i = 0; i < l1.size(); ++i) l1_[i].store(l1[i], std::memory_order_relaxed);
  dirty_.reset(l1_entries_ * kTableEntryBytes, image_.metadata_unit);
  dirty_.table_is_at(image_.header.l1_table_offset, *image_.log);
}

void Mapping::claim_structures() {
  image_.guard.claim(kActiveL1, image_.header.l1_table_offset, image_.header.l1_bytes());
  for (uint64_t index = 0; index < l1_entries_; ++index) {
    const uint64_t offset = load_l1(index) & kOffsetMask;
    if (offset != 0) image_.guard.claim(kActiveL2, offset, image_.geometry.cluster_size());
  }
}

void Mapping::drop_tables(uint64_t first_entry) {
  for (uint64_t index = first_entry; index < l1_entries_; ++index) {
    const uint64_t entry = load_l1(index);
    if (entry == 0) continue;
    frees_.add(entry & kOffsetMask, 1, FreeReason::kOther);
    l1_[index] = 0;
    dirty_.mark(index * kTableEntryBytes);
  }
  cache_.clear();
  image_.changed(0);
}

}  // namespace platter::format::qcow2
