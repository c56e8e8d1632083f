// Write-zeroes and discard: mappings change, data does not move.

#include <algorithm>

#include "base/try.h"
#include "format/qcow2/driver.h"

namespace platter::format::qcow2 {

io::Task<Result<void>> Qcow2::zero(uint64_t offset, uint64_t length, block::WriteFlags flags) {
  if (flags.has(block::WriteFlag::kFua)) {
    PLATTER_CO_TRY(co_await zero(offset, length, flags.without(block::WriteFlag::kFua)));
    co_return co_await flush();
  }
  PLATTER_CO_TRY(co_await begin_guest_write());
  const Geometry& geometry = image_.geometry;
  if (geometry.version < 3)
    co_return fail(ENOTSUP, "qcow2: Version 2 images have no zero clusters");
  const bool unmap = flags.has(block::WriteFlag::kMayUnmap);
  const Release how =
      unmap && !options_.discard_no_unref ? Release::kToZero : Release::kToZeroKeepHost;
  const uint64_t unit = geometry.subcluster_size();
  uint64_t end = offset + length;
  // The last cluster may be cut by the end of the disk; nothing behind it is seen.
  if (end >= size()) end = geometry.clusters_for(end) << geometry.cluster_bits;
  const uint64_t body = std::min(base::align_up(offset, unit), end);
  const uint64_t body_end = std::max(base::align_down(end, unit), body);

  if (offset < body) {
    PLATTER_CO_ASSIGN(const bool zeroed, co_await zero_partial(offset, body - offset, how));
    if (!zeroed)
      co_return fail(ENOTSUP, "qcow2: Part of a cluster cannot be zeroed by its mapping");
  }
  if (body_end < end) {
    PLATTER_CO_ASSIGN(const bool zeroed, co_await zero_partial(body_end, end - body_end, how));
    if (!zeroed)
      co_return fail(ENOTSUP, "qcow2: Part of a cluster cannot be zeroed by its mapping");
  }
  if (body >= body_end) co_return Result<void>{};
  if (geometry.external_data)
    PLATTER_CO_TRY(co_await zero_in_data_file(body, body_end, flags));
  else if (unmap && options_.discard_no_unref)
    PLATTER_CO_TRY(co_await punch_kept_clusters(body, body_end));
  co_return co_await zero_range(body, body_end, how, FreeReason::kDiscard);
}

// Before the mapping says that the range reads as zeroes. A raw data file must read so itself; of
// another one the space is given back, where that is wanted.
io::Task<Result<void>> Qcow2::zero_in_data_file(uint64_t offset, uint64_t end,
                                                block::WriteFlags flags) {
  end = std::min(end, size());
  if (offset >= end) co_return Result<void>{};
  if (image_.has_raw_data_file()) co_return co_await image_.data->zero(offset, end - offset, flags);
  if (!flags.has(block::WriteFlag::kMayUnmap) || !may_punch_before_mapping())
    co_return Result<void>{};
  auto zeroed =
      co_await image_.data->zero(offset, end - offset, flags | block::WriteFlag::kNoFallback);
  if (!zeroed && zeroed.error().code() == ENOTSUP) co_return Result<void>{};
  co_return zeroed;
}

// Gives back the space behind clusters that stay allocated, before the mapping says that they read
// as zeroes. They are still ours then: a cluster that somebody frees meanwhile is nobody else's
// before this request has ended.
io::Task<Result<void>> Qcow2::punch_kept_clusters(uint64_t offset, uint64_t end) {
  if (!may_punch_before_mapping()) co_return Result<void>{};
  const auto flags = block::WriteFlag::kMayUnmap | block::WriteFlag::kNoFallback;
  end = std::min(end, size());
  while (offset < end) {
    PLATTER_CO_ASSIGN(const Run run, co_await mapping_.lookup(offset, end - offset));
    offset += run.length;
    if (run.kind != ClusterKind::kNormal || !run.copied) continue;
    PLATTER_CO_TRY(co_await check_data_place(run.host_offset, run.length));
    auto zeroed = co_await image_.file->zero(run.host_offset, run.length, flags);
    if (!zeroed && zeroed.error().code() != ENOTSUP) co_return zeroed;
  }
  co_return Result<void>{};
}

io::Task<Result<void>> Qcow2::discard_in_data_file(uint64_t offset, uint64_t end) {
  if (image_.has_raw_data_file())
    co_return co_await zero_in_data_file(offset, end, block::WriteFlag::kMayUnmap);
  end = std::min(end, image_.data->size());
  if (offset >= end || !may_punch_before_mapping()) co_return Result<void>{};
  co_return co_await image_.data->discard(offset, end - offset);
}

io::Task<Result<void>> Qcow2::discard(uint64_t offset, uint64_t length) {
  PLATTER_CO_TRY(co_await begin_guest_write());
  const Geometry& geometry = image_.geometry;
  const bool backed = image_.node->backing() != nullptr;
  if (geometry.version < 3 && backed) {
    co_return fail(ENOTSUP, "qcow2: Version 2 images with a backing file cannot discard");
  }
  uint64_t end = offset + length;
  end = end >= size() ? geometry.clusters_for(end) << geometry.cluster_bits
                      : geometry.align_down(end);
  offset = geometry.clusters_for(offset) << geometry.cluster_bits;
  if (offset >= end) co_return Result<void>{};
  const bool keep = options_.discard_no_unref;
  if (geometry.external_data)
    PLATTER_CO_TRY(co_await discard_in_data_file(offset, end));
  else if (keep)
    PLATTER_CO_TRY(co_await punch_kept_clusters(offset, end));
  const Release how = geometry.version < 3 ? Release::kToBacking
                      : keep               ? Release::kToZeroKeepHost
                                           : Release::kToZero;
  co_return co_await zero_range(offset, end, how, FreeReason::kDiscard);
}

// What an entry becomes, or nullopt if it stays.
std::optional<uint64_t> Qcow2::released_entry(uint64_t entry, ClusterKind kind, Release how) const {
  if (how == Release::kToBacking) return entry == 0 ? std::nullopt : std::optional<uint64_t>(0);
  if (kind == ClusterKind::kUnallocated && image_.node->backing() == nullptr) return std::nullopt;
  const bool keep = how == Release::kToZeroKeepHost && kind != ClusterKind::kCompressed;
  const uint64_t next = keep ? entry | kZeroFlag : kZeroFlag;
  return next == entry ? std::nullopt : std::optional(next);
}

// The same of the subclusters in `mask`. `kToBacking` is of whole clusters.
std::optional<ExtendedEntry> Qcow2::released_subclusters(ExtendedEntry entry, uint64_t mask,
                                                         Release how) const {
  const bool compressed = (entry.entry & kCompressedFlag) != 0;
  ExtendedEntry next;
  if (how != Release::kToBacking) {
    // What reads as zeroes anyway stays as it is.
    const bool has_host = compressed || names_host(entry.entry, image_.geometry);
    if (!has_host && image_.node->backing() == nullptr) return std::nullopt;
    const uint64_t zeroes = compressed ? mask : entry.zeroes() | mask;
    next.bitmap = zeroes << kSubclusters | (compressed ? 0 : entry.allocated() & ~mask);
    // Of a part the host cluster stays: somebody may be filling another part of it.
    const bool keep = how == Release::kToZeroKeepHost || mask != kAllSubclusters;
    next.entry = keep && !compressed ? entry.entry : 0;
  }
  return next == entry ? std::nullopt : std::optional(next);
}

// Units of [offset, end), which are subclusters where there are any.
io::Task<Result<void>> Qcow2::zero_range(uint64_t offset, uint64_t end, Release how,
                                         FreeReason reason) {
  const unsigned unit_bits = image_.geometry.subcluster_bits();
  while (offset < end) {
    PLATTER_CO_TRY(co_await relieve_pressure());
    InFlightAllocations::Waiting waiting;
    {
      auto lock = co_await image_.allocation.lock();
      PLATTER_CO_TRY(check_writable());
      const uint64_t coverage = mapping_.slice_coverage();
      uint64_t step_end = std::min(end, (offset / coverage + 1) * coverage);
      auto* other = in_flight_.find(offset >> unit_bits, step_end >> unit_bits);
      if (other == nullptr || other->first > offset >> unit_bits) {
        if (other != nullptr) step_end = other->first << unit_bits;
        PLATTER_CO_ASSIGN(offset, co_await zero_step(offset, step_end, end, how, reason));
        continue;
      }
      InFlightAllocations::wait_for(*other, waiting);
    }
    co_await waiting.ended.wait();
  }
  co_return Result<void>{};
}

// Under the allocation mutex; [offset, step_end) lies in one slice. Returns how far it got: further
// than step_end, at most to `end`, where there is no table and none is needed.
io::Task<Result<uint64_t>> Qcow2::zero_step(uint64_t offset, uint64_t step_end, uint64_t end,
                                            Release how, FreeReason reason) {
  const Geometry& geometry = image_.geometry;
  const bool falls_through = how == Release::kToBacking || image_.node->backing() == nullptr;
  if (falls_through && !mapping_.has_table(offset)) {
    // An allocation in flight has made its table already: none is skipped here.
    const uint64_t table_end = (offset / geometry.l2_coverage() + 1) * geometry.l2_coverage();
    co_return std::min(table_end, end);
  }
  PLATTER_CO_TRY(co_await prepare_allocation());
  PLATTER_CO_ASSIGN(auto pin, co_await mapping_.writable_slice(offset));
  Result<bool> changed = false;
  pin.change(
      [&](SliceWords words) { changed = release_entries(words, offset, step_end, how, reason); });
  // A failure may have come after a change.
  if (!changed || *changed) {
    pin.mark_dirty();
    // A raw data file reads as zeroes before the mapping says so.
    image_.changed(image_.has_raw_data_file() ? kUndurableData : 0);
  }
  if (changed) co_return step_end;
  if (changed.error().code() != EIO) co_return std::unexpected(std::move(changed).error());
  // Some entry is invalid: looking it up says what is wrong with it.
  for (uint64_t at = offset; at < step_end;) {
    PLATTER_CO_ASSIGN(const Run run, co_await mapping_.lookup(at, step_end - at));
    at += run.length;
  }
  co_return std::unexpected(std::move(changed).error());
}

// Whether it changed any. EIO: one of them is invalid; ENOTSUP: a part of a compressed cluster.
Result<bool> Qcow2::release_entries(SliceWords words, uint64_t offset, uint64_t end, Release how,
                                    FreeReason reason) {
  const Geometry& geometry = image_.geometry;
  size_t index = mapping_.index_in_slice(offset);
  bool changed = false;
  for (uint64_t at = offset; at < end; ++index) {
    const uint64_t next_at = std::min(geometry.align_down(at) + geometry.cluster_size(), end);
    ExtendedEntry old, next;
    if (geometry.extended_l2) {
      old = {words.get(2 * index), words.get(2 * index + 1)};
      if (decode_subcluster(old, 0, geometry).kind == ClusterKind::kInvalid)
        return fail(EIO, "qcow2: Invalid cluster entry found");
      const unsigned first = geometry.subcluster_index(at);
      const unsigned count = static_cast<unsigned>((next_at - at) >> geometry.subcluster_bits());
      if ((old.entry & kCompressedFlag) != 0 && count < kSubclusters)
        return fail(ENOTSUP, "qcow2: Part of a compressed cluster cannot be zeroed by its mapping");
      const auto released = released_subclusters(old, subcluster_mask(first, first + count), how);
      next = released.value_or(old);
      words.set(2 * index, next.entry);
      words.set(2 * index + 1, next.bitmap);
    } else {
      old.entry = words.get(index);
      const Cluster cluster = decode_l2_entry(old.entry, geometry);
      if (cluster.kind == ClusterKind::kInvalid)
        return fail(EIO, "qcow2: Invalid cluster entry found");
      next.entry = released_entry(old.entry, cluster.kind, how).value_or(old.entry);
      words.set(index, next.entry);
    }
    at = next_at;
    if (next == old) continue;
    changed = true;
    const bool had_host = (old.entry & (kOffsetMask | kCompressedFlag)) != 0;
    if (had_host && (next.entry & kOffsetMask) == 0) queue_free(old.entry, reason);
  }
  return changed;
}

// Part of one unit: possible where the rest of it reads zero already.
io::Task<Result<bool>> Qcow2::zero_partial(uint64_t offset, uint64_t length, Release how) {
  const Geometry& geometry = image_.geometry;
  const uint64_t start = base::align_down(offset, geometry.subcluster_size());
  const uint64_t end = start + geometry.subcluster_size();
  for (;;) {
    InFlightAllocations::Waiting waiting;
    {
      auto lock = co_await image_.allocation.lock();
      PLATTER_CO_TRY(check_writable());
      auto* other =
          in_flight_.find(start >> geometry.subcluster_bits(), end >> geometry.subcluster_bits());
      if (other == nullptr) {
        PLATTER_CO_ASSIGN(const Run run, co_await mapping_.lookup(start, end - start));
        if (reads_zero(run.kind)) co_return true;
        if (!shows_backing(run.kind)) co_return false;
        PLATTER_CO_ASSIGN(const bool before, co_await backing_reads_zero(start, offset));
        PLATTER_CO_ASSIGN(const bool behind, co_await backing_reads_zero(offset + length, end));
        if (!before || !behind) co_return false;
        PLATTER_CO_TRY(co_await zero_step(start, end, end, how, FreeReason::kDiscard));
        co_return true;
      }
      InFlightAllocations::wait_for(*other, waiting);
    }
    co_await waiting.ended.wait();
  }
}

io::Task<Result<bool>> Qcow2::backing_reads_zero(uint64_t offset, uint64_t end) {
  block::Child* backing = image_.node->backing();
  end = std::min(end, backing == nullptr ? 0 : backing->size());
  while (offset < end) {
    PLATTER_CO_ASSIGN(const block::BlockStatus status,
                      co_await backing->node().status_above(nullptr, offset, end - offset,
                                                            block::StatusDetail::kFast, nullptr));
    if (!status.zero) co_return false;
    offset += status.length;
  }
  co_return true;
}

}  // namespace platter::format::qcow2
