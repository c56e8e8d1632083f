// Write-zeroes and discard: mappings change, data does not move.

#include <algorithm>

#include "base/try.h"
#include "format/qcow2/driver.h"

namespace platter::format::qcow2 {

io::Task<Result<void>> Qcow2::zero(uint64_t offset, uint64_t length, block::WriteFlags flags) {
  PLATTER_CO_TRY(co_await begin_guest_write());
  const Geometry& geometry = image_.geometry;
  if (geometry.version < 3)
    co_return fail(ENOTSUP, "qcow2: Version 2 images have no zero clusters");
  const Release how =
      flags.has(block::WriteFlag::kMayUnmap) ? Release::kToZero : Release::kToZeroKeepHost;
  uint64_t end = offset + length;
  // The last cluster may be cut by the end of the disk; nothing behind it is seen.
  if (end >= size()) end = geometry.clusters_for(end) << geometry.cluster_bits;
  const uint64_t body = std::min(geometry.clusters_for(offset) << geometry.cluster_bits, end);
  const uint64_t body_end = std::max(geometry.align_down(end), body);

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
  if (body < body_end)
    PLATTER_CO_TRY(co_await zero_range(body, body_end, how, FreeReason::kDiscard));
  co_return Result<void>{};
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
  const Release how = geometry.version >= 3 ? Release::kToZero : Release::kToBacking;
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

// Whole clusters [offset, end).
io::Task<Result<void>> Qcow2::zero_range(uint64_t offset, uint64_t end, Release how,
                                         FreeReason reason) {
  const unsigned bits = image_.geometry.cluster_bits;
  while (offset < end) {
    PLATTER_CO_TRY(co_await relieve_pressure());
    InFlightAllocations::Waiting waiting;
    {
      auto lock = co_await image_.allocation.lock();
      PLATTER_CO_TRY(check_writable());
      const uint64_t coverage = mapping_.slice_coverage();
      uint64_t step_end = std::min(end, (offset / coverage + 1) * coverage);
      auto* other = in_flight_.find(offset >> bits, step_end >> bits);
      if (other == nullptr || other->first > offset >> bits) {
        if (other != nullptr) step_end = other->first << bits;
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
  const SliceWords words = pin.words();
  size_t index = mapping_.index_in_slice(offset);
  bool changed = false;
  for (uint64_t at = offset; at < step_end; at += geometry.cluster_size(), ++index) {
    const uint64_t entry = words.get(index);
    const Cluster cluster = decode_l2_entry(entry, geometry);
    if (cluster.kind == ClusterKind::kInvalid) {
      if (changed) pin.mark_dirty();
      auto invalid = co_await mapping_.lookup(at, 1);  // says what is wrong with it
      PLATTER_CO_TRY(std::move(invalid));
      co_return fail(EIO, "qcow2: Invalid cluster entry found");
    }
    const auto next = released_entry(entry, cluster.kind, how);
    if (!next) continue;
    words.set(index, *next);
    changed = true;
    if ((*next & kOffsetMask) == 0) queue_free(entry, reason);
  }
  if (changed) {
    pin.mark_dirty();
    image_.changed(0);
  }
  co_return step_end;
}

// Part of one cluster: possible where the rest of it reads zero already.
io::Task<Result<bool>> Qcow2::zero_partial(uint64_t offset, uint64_t length, Release how) {
  const Geometry& geometry = image_.geometry;
  const uint64_t start = geometry.align_down(offset);
  const uint64_t end = start + geometry.cluster_size();
  for (;;) {
    InFlightAllocations::Waiting waiting;
    {
      auto lock = co_await image_.allocation.lock();
      PLATTER_CO_TRY(check_writable());
      auto* other = in_flight_.find(start >> geometry.cluster_bits, end >> geometry.cluster_bits);
      if (other == nullptr) {
        PLATTER_CO_ASSIGN(const Run run, co_await mapping_.lookup(start, geometry.cluster_size()));
        if (reads_zero(run.kind)) co_return true;
        if (run.kind != ClusterKind::kUnallocated) co_return false;
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
