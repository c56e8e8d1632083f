#include "format/qcow2/refcounts.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <memory>

#include "base/try.h"
#include "format/qcow2/free_queue.h"
#include "format/qcow2/metadata_io.h"

namespace platter::format::qcow2 {

using block::DebugEvent;

namespace {

struct Position {
  uint64_t word;
  unsigned shift;
  uint64_t mask;
};

Position locate(uint64_t index, unsigned order) {
  const unsigned bits = 1u << order;
  const uint64_t mask = order == 6 ? UINT64_MAX : (uint64_t{1} << bits) - 1;
  const uint64_t first_bit = index << order;
  const uint64_t word = first_bit / 64;
  const unsigned in_word = static_cast<unsigned>(first_bit % 64);
  // Below a byte, entries fill the byte from its least significant bit.
  if (order < 3) return {word, 56 - (in_word & ~7u) + (in_word & 7u), mask};
  return {word, 64 - in_word - bits, mask};
}

}  // namespace

uint64_t load_refcount(SliceWords words, uint64_t index, unsigned order) {
  const Position at = locate(index, order);
  return (words.get(at.word) >> at.shift) & at.mask;
}

void store_refcount(SliceWords words, uint64_t index, unsigned order, uint64_t value) {
  const Position at = locate(index, order);
  PLATTER_ASSERT(value <= at.mask);
  const uint64_t word = words.get(at.word);
  words.set(at.word, (word & ~(at.mask << at.shift)) | (value << at.shift));
}

Refcounts::Refcounts(Image& image, FreeQueue& frees, TableCache::Config cache)
    : image_(image), frees_(frees), cache_(cache) {}

void Refcounts::renew_cache(TableCache::Config cache) {
  std::destroy_at(&cache_);
  std::construct_at(&cache_, cache);
  dirty_.leave_state();
}

uint64_t Refcounts::slice_entries() const {
  return (cache_.slice_bytes() * 8) >> image_.geometry.refcount_order;
}

io::Task<Result<void>> Refcounts::load() {
  const uint64_t bytes = image_.header.refcount_table_bytes();
  io::AlignedBuffer buffer(bytes);
  co_await image_.file->pass(DebugEvent::kReftableLoad);
  auto read =
      co_await read_padded(*image_.file, image_.header.refcount_table_offset, buffer.view());
  if (!read) {
    co_return std::unexpected(
        std::move(read).error().with_context("Could not initialize refcount handling"));
  }
  table_.resize(bytes / kTableEntryBytes);
  for (size_t i = 0; i < table_.size(); ++i)
    table_[i] = base::load_big<uint64_t>(buffer.span(), i * 8);
  dirty_.reset(bytes, image_.metadata_unit);
  dirty_.table_is_at(image_.header.refcount_table_offset, *image_.log);
  fresh_from_ = 0;
  file_reached(image_.file->size());
  free_hint_ = 0;
  co_return Result<void>{};
}

void Refcounts::adopt(std::vector<uint64_t> table) {
  cache_.clear();
  table_ = std::move(table);
  dirty_.reset(table_.size() * kTableEntryBytes, image_.metadata_unit);
  dirty_.table_is_at(image_.header.refcount_table_offset, *image_.log);
  file_reached(image_.file->size());
  free_hint_ = 0;
  leave_tail();
}

void Refcounts::keep_in(SliceState& slices, TableState& table) {
  cache_.keep_in(slices);
  dirty_.keep_in(table,
                 [this](uint64_t index) { return index < table_.size() ? table_[index] : 0; });
}

void Refcounts::file_was_cut() {
  leave_tail();
  fresh_from_ = 0;
  file_reached(image_.file->size());
}

void Refcounts::file_reached(uint64_t end) {
  const uint64_t aligned = image_.geometry.clusters_for(end) << image_.geometry.cluster_bits;
  fresh_from_ = std::max(fresh_from_, aligned);
}

// The host offset of a refcount block that the table names, or 0.
Result<uint64_t> Refcounts::check_block_entry(uint64_t block) const {
  const uint64_t entry = table_[block];
  const uint64_t offset = entry & kRefcountTableOffsetMask;
  if ((entry & kRefcountTableReservedMask) != 0 || !image_.geometry.is_aligned(offset) ||
      offset > kMaxHostOffset) {
    return fail(
        EIO, fmt::format("Refblock offset {:#x} unaligned (reftable index: {:#x})", entry, block));
  }
  return offset;
}

uint64_t Refcounts::slice_host_offset(uint64_t key) const {
  const uint64_t cluster = key * slice_entries();
  const uint64_t block = block_of(cluster);
  PLATTER_ASSERT(block < table_.size());
  const uint64_t in_block = image_.geometry.refcount_block_index(cluster) / slice_entries();
  return (table_[block] & kRefcountTableOffsetMask) + in_block * cache_.slice_bytes();
}

// The slice that counts `cluster`; its block exists.
io::Task<Result<TableCache::Pin>> Refcounts::slice(uint64_t cluster) {
  const uint64_t block = block_of(cluster);
  PLATTER_ASSERT(block < table_.size());
  auto offset = check_block_entry(block);
  if (!offset) {
    co_return std::unexpected(co_await image_.corruption(offset.error().message()));
  }
  PLATTER_ASSERT(*offset != 0);
  const uint64_t key = slice_of(cluster);
  co_return co_await cache_.acquire(key, image_.file, slice_host_offset(key));
}

io::Task<Result<uint64_t>> Refcounts::get(uint64_t cluster) {
  const uint64_t block = block_of(cluster);
  if (block >= table_.size() || table_[block] == 0) co_return 0;
  PLATTER_CO_ASSIGN(auto pin, co_await slice(cluster));
  co_return load_refcount(pin.words(), cluster % slice_entries(), image_.geometry.refcount_order);
}

io::Task<Result<HostRun>> Refcounts::allocate(uint64_t max_clusters) {
  PLATTER_ASSERT(max_clusters > 0);
  co_await image_.file->pass(DebugEvent::kClusterAlloc);
  const uint64_t entries = slice_entries();
  const unsigned order = image_.geometry.refcount_order;
  uint64_t cluster = free_hint_;
  for (;;) {
    const uint64_t block = block_of(cluster);
    if (block >= table_.size()) {
      PLATTER_CO_TRY(co_await grow_table(block + 1));
      continue;
    }
    if (table_[block] == 0) {
      PLATTER_CO_TRY(co_await add_blocks(block, 1, 1));
      continue;
    }
    PLATTER_CO_ASSIGN(auto pin, co_await slice(cluster));
    const SliceWords words = pin.words();
    uint64_t first = cluster % entries;
    while (first < entries && load_refcount(words, first, order) != 0) ++first;
    cluster = cluster - cluster % entries + first;
    free_hint_ = cluster;
    if (first == entries) continue;
    const uint64_t limit = std::min(entries, first + max_clusters);
    uint64_t end = first;
    while (end < limit && load_refcount(words, end, order) == 0) {
      store_refcount(words, end, order, 1);
      ++end;
    }
    pin.mark_dirty();
    image_.changed(0);
    free_hint_ = cluster + (end - first);
    co_return co_await finish_allocation(cluster, end - first);
  }
}

// What every allocation passes: limits, and that no structure which everything hangs from is handed
// out.
io::Task<Result<HostRun>> Refcounts::finish_allocation(uint64_t cluster, uint64_t clusters) {
  const unsigned bits = image_.geometry.cluster_bits;
  const uint64_t offset = cluster << bits;
  const uint64_t bytes = clusters << bits;
  if (cluster > (kMaxHostOffset >> bits) || clusters > (kMaxHostOffset >> bits) - cluster) {
    PLATTER_CO_TRY(co_await release(offset, clusters));
    co_return fail(EFBIG, "qcow2: The image has no host offsets left");
  }
  PLATTER_CO_TRY(co_await image_.check_overlap(offset, bytes, 0));
  if (overlaps_metadata(offset, bytes)) {
    co_return std::unexpected(co_await image_.corruption(
        fmt::format("Preventing invalid allocation of metadata at offset {:#x}", offset)));
  }
  const bool fresh = offset >= fresh_from_;
  file_reached(offset + bytes);
  co_return HostRun{offset, clusters, fresh};
}

bool Refcounts::overlaps_metadata(uint64_t host_offset, uint64_t bytes) const {
  const auto overlaps = [&](uint64_t offset, uint64_t length) {
    return length != 0 && offset < host_offset + bytes && host_offset < offset + length;
  };
  const Header& header = image_.header;
  return overlaps(0, image_.geometry.cluster_size()) ||
         overlaps(header.l1_table_offset, header.l1_bytes()) ||
         overlaps(header.refcount_table_offset, header.refcount_table_bytes()) ||
         overlaps(header.snapshots_offset, header.snapshot_count);
}

// Makes refcount blocks `first_block`... that lie at the start of the range they describe, followed
// by clusters that are in use already: `clusters_used` in all, blocks included.
io::Task<Result<void>> Refcounts::add_blocks(uint64_t first_block, uint64_t blocks,
                                             uint64_t clusters_used) {
  const Geometry& geometry = image_.geometry;
  const uint64_t per_block = geometry.refcount_block_entries();
  const uint64_t first_cluster = first_block << geometry.refcount_block_bits();
  const uint64_t offset = first_cluster << geometry.cluster_bits;
  if (first_cluster > (kMaxHostOffset >> geometry.cluster_bits) - clusters_used) {
    co_return fail(EFBIG, "qcow2: The image has no host offsets left");
  }
  // A table that lost an entry makes what everything hangs from look free.
  PLATTER_CO_TRY(co_await image_.check_overlap(offset, clusters_used << geometry.cluster_bits, 0));
  if (overlaps_metadata(offset, clusters_used << geometry.cluster_bits)) {
    co_return std::unexpected(co_await image_.corruption(
        fmt::format("Preventing invalid allocation of refcount block at offset {:#x}", offset)));
  }
  co_await image_.file->pass(DebugEvent::kRefblockAlloc);
  file_reached(offset + (clusters_used << geometry.cluster_bits));
  io::AlignedBuffer content(geometry.cluster_size());
  for (uint64_t i = 0; i < blocks; ++i) {
    PLATTER_ASSERT(table_[first_block + i] == 0);
    content.view().fill_zero();
    const uint64_t used =
        std::min(per_block, clusters_used - std::min(clusters_used, i * per_block));
    for (uint64_t entry = 0; entry < used; ++entry) {
      qcow2::store_refcount(content.data(), entry, geometry.refcount_order, 1);
    }
    co_await image_.file->pass(DebugEvent::kRefblockAllocWrite);
    PLATTER_CO_TRY(
        co_await image_.file->write(offset + (i << geometry.cluster_bits), content.view()));
  }
  for (uint64_t i = 0; i < blocks; ++i) {
    table_[first_block + i] = offset + (i << geometry.cluster_bits);
    image_.guard.claim(kRefcountBlock, table_[first_block + i], geometry.cluster_size());
    dirty_.mark((first_block + i) * kTableEntryBytes);
  }
  image_.changed(kUndurableRefcountBlocks);
  co_return Result<void>{};
}

// The first block from which on there is none.
uint64_t Refcounts::first_block_beyond() const {
  uint64_t block = table_.size();
  while (block > 0 && table_[block - 1] == 0) --block;
  return block;
}

namespace {
// As the header has them.
std::array<uint8_t, 12> table_fields(uint64_t offset, uint64_t clusters) {
  std::array<uint8_t, 12> fields;
  base::store_big<uint64_t>(fields, 0, offset);
  base::store_big<uint32_t>(fields, 8, static_cast<uint32_t>(clusters));
  return fields;
}

// How many blocks describe themselves and `clusters` more.
uint64_t blocks_for(uint64_t clusters, uint64_t per_block) {
  uint64_t blocks = 1;
  while (blocks * per_block < blocks + clusters) {
    blocks = base::divide_round_up(blocks + clusters, per_block);
  }
  return blocks;
}
}  // namespace

io::Task<Result<HostRun>> Refcounts::allocate_beyond(uint64_t clusters) {
  const Geometry& geometry = image_.geometry;
  const uint64_t blocks = blocks_for(clusters, geometry.refcount_block_entries());
  uint64_t first = first_block_beyond();
  if (first + blocks > table_.size()) {
    PLATTER_CO_TRY(co_await grow_table(first + blocks));
    first = first_block_beyond();
    // The new table took some of what was beyond; it was made larger by more than that.
    if (first + blocks > table_.size()) PLATTER_CO_TRY(co_await grow_table(first + blocks));
    first = first_block_beyond();
  }
  const uint64_t cluster = (first << geometry.refcount_block_bits()) + blocks;
  const bool fresh = (cluster << geometry.cluster_bits) >= fresh_from_;
  PLATTER_CO_TRY(co_await add_blocks(first, blocks, blocks + clusters));
  co_return HostRun{cluster << geometry.cluster_bits, clusters, fresh};
}

io::Task<Result<HostRun>> Refcounts::allocate_contiguous(uint64_t clusters) {
  PLATTER_CO_ASSIGN(HostRun run, co_await allocate(clusters));
  if (run.clusters == clusters) co_return run;
  PLATTER_CO_TRY(co_await release(run.offset, run.clusters));
  co_return co_await allocate_beyond(clusters);
}

// Order: the new blocks and the whole new table, a flush, the header's fields in one write, a
// flush.
io::Task<Result<void>> Refcounts::grow_table(uint64_t min_entries) {
  const Geometry& geometry = image_.geometry;
  const uint64_t per_block = geometry.refcount_block_entries();
  const uint64_t per_cluster = geometry.cluster_size() / kTableEntryBytes;
  const uint64_t first = first_block_beyond();
  uint64_t blocks = 1, table_clusters = 0, entries = 0;
  for (uint64_t previous = 0; previous != blocks;) {
    previous = blocks;
    entries = std::max({min_entries, first + blocks, table_.size() + table_.size() / 2});
    table_clusters = base::divide_round_up(entries + 1, per_cluster);
    blocks = std::max(blocks, blocks_for(table_clusters, per_block));
  }
  if (table_clusters << geometry.cluster_bits > kMaxRefcountTableBytes) {
    co_return fail(EFBIG, "qcow2: The refcount table would become too large");
  }
  const uint64_t old_offset = image_.header.refcount_table_offset;
  const uint64_t old_clusters = image_.header.refcount_table_clusters;
  const uint64_t old_entries = table_.size();

  co_await image_.file->pass(DebugEvent::kReftableGrow);
  table_.resize(table_clusters * per_cluster);
  dirty_.reset(table_.size() * kTableEntryBytes, image_.metadata_unit);
  auto grown = co_await add_blocks(first, blocks, blocks + table_clusters);
  const uint64_t new_offset = ((first << geometry.refcount_block_bits()) + blocks)
                              << geometry.cluster_bits;
  if (grown) {
    io::AlignedBuffer content(table_.size() * kTableEntryBytes);
    for (size_t i = 0; i < table_.size(); ++i)
      base::store_big<uint64_t>(content.span(), i * 8, table_[i]);
    co_await image_.file->pass(DebugEvent::kRefblockAllocWriteTable);
    grown = co_await image_.file->write(new_offset, content.view());
  }
  if (grown) grown = co_await image_.file->flush();
  if (grown) {
    co_await image_.file->pass(DebugEvent::kRefblockAllocSwitchTable);
    grown = co_await image_.replace_header_fields(field::kRefcountTableOffset,
                                                  table_fields(old_offset, old_clusters),
                                                  table_fields(new_offset, table_clusters));
  }
  if (!grown) {
    // The old table still stands, and every entry that it may lack is written again.
    image_.guard.forget(first << (geometry.refcount_block_bits() + geometry.cluster_bits),
                        blocks << geometry.cluster_bits);
    table_.resize(old_entries);
    for (uint64_t block = first; block < old_entries; ++block) table_[block] = 0;
    dirty_.reset(old_entries * kTableEntryBytes, image_.metadata_unit);
    for (uint64_t block = 0; block < old_entries; ++block) dirty_.mark(block * kTableEntryBytes);
    co_return std::unexpected(
        std::move(grown).error().with_context("Could not grow the refcount table"));
  }
  image_.header.refcount_table_offset = new_offset;
  image_.header.refcount_table_clusters = static_cast<uint32_t>(table_clusters);
  image_.guard.claim(kRefcountTable, new_offset, image_.header.refcount_table_bytes());
  dirty_.reset(table_.size() * kTableEntryBytes, image_.metadata_unit);
  dirty_.table_is_at(new_offset, *image_.log);
  frees_.add(old_offset, old_clusters, FreeReason::kOther);
  co_return Result<void>{};
}

io::Task<Result<void>> Refcounts::release(uint64_t host_offset, uint64_t clusters) {
  co_await image_.file->pass(DebugEvent::kClusterFree);
  uint64_t cluster = host_offset >> image_.geometry.cluster_bits;
  const uint64_t entries = slice_entries();
  const unsigned order = image_.geometry.refcount_order;
  while (clusters > 0) {
    const uint64_t block = block_of(cluster);
    if (block >= table_.size() || table_[block] == 0) {
      co_return std::unexpected(co_await image_.corruption(
          fmt::format("Refcount block missing for cluster {} that is being freed", cluster)));
    }
    PLATTER_CO_ASSIGN(auto pin, co_await slice(cluster));
    const SliceWords words = pin.words();
    const uint64_t limit = std::min(entries - cluster % entries, clusters);
    for (uint64_t i = 0; i < limit; ++i, ++cluster, --clusters) {
      const uint64_t count = load_refcount(words, cluster % entries, order);
      if (count == 0) {
        pin.mark_dirty();
        co_return std::unexpected(co_await image_.corruption(
            fmt::format("Refcount of cluster {} would fall below zero", cluster)));
      }
      store_refcount(words, cluster % entries, order, count - 1);
      if (count == 1) {
        image_.guard.forget(cluster << image_.geometry.cluster_bits, 1);
        free_hint_ = std::min(free_hint_, cluster);
        if (cluster == tail_ >> image_.geometry.cluster_bits) leave_tail();
      }
    }
    pin.mark_dirty();
    image_.changed(0);
  }
  co_return Result<void>{};
}

io::Task<Result<void>> Refcounts::drop_empty_blocks() {
  const uint64_t entries = slice_entries();
  const uint64_t per_block = image_.geometry.refcount_block_entries();
  const unsigned order = image_.geometry.refcount_order;
  for (uint64_t block = first_block_beyond(); block-- > 1;) {
    if (table_[block] == 0) continue;
    const uint64_t first = block << image_.geometry.refcount_block_bits();
    const uint64_t own = (table_[block] & kRefcountTableOffsetMask) >> image_.geometry.cluster_bits;
    if (own < first || own - first >= per_block) break;
    bool empty = true;
    for (uint64_t cluster = first; empty && cluster < first + per_block; cluster += entries) {
      PLATTER_CO_ASSIGN(auto pin, co_await slice(cluster));
      for (uint64_t i = 0; empty && i < entries; ++i) {
        empty = load_refcount(pin.words(), i, order) == (cluster + i == own ? 1 : 0);
      }
    }
    if (!empty) break;
    image_.guard.forget(own << image_.geometry.cluster_bits, 1);
    table_[block] = 0;
    dirty_.mark(block * kTableEntryBytes);
    image_.changed(0);
  }
  cache_.clear();
  free_hint_ = 0;
  co_return Result<void>{};
}

void Refcounts::take_dirty_table(std::vector<uint8_t>& staging, std::vector<StagedWrite>& writes) {
  const uint64_t unit = dirty_.unit_bytes();
  for (uint32_t index : dirty_.take()) {
    const size_t position = staging.size();
    staging.resize(position + unit);
    for (uint64_t i = 0; i < unit / 8; ++i) {
      base::store_big<uint64_t>(staging, position + i * 8, table_[index * unit / 8 + i]);
    }
    writes.push_back({image_.header.refcount_table_offset + index * unit, position, unit});
  }
}

void Refcounts::end_table_write(std::span<const StagedWrite> writes,
                                std::span<const uint8_t> staging, bool written) {
  dirty_.end_write(image_.header.refcount_table_offset, writes, staging, written);
}

void Refcounts::claim_structures() {
  const Geometry& geometry = image_.geometry;
  image_.guard.claim(kRefcountTable, image_.header.refcount_table_offset,
                     image_.header.refcount_table_bytes());
  for (uint64_t block = 0; block < table_.size(); ++block) {
    const auto offset = check_block_entry(block);
    if (offset && *offset != 0)
      image_.guard.claim(kRefcountBlock, *offset, geometry.cluster_size());
  }
}

io::Task<Result<uint64_t>> Refcounts::end_of_used() {
  const uint64_t entries = slice_entries();
  const unsigned order = image_.geometry.refcount_order;
  for (uint64_t block = first_block_beyond(); block-- > 0;) {
    if (table_[block] == 0) continue;
    const uint64_t first = block << image_.geometry.refcount_block_bits();
    for (uint64_t part = image_.geometry.refcount_block_entries() / entries; part-- > 0;) {
      PLATTER_CO_ASSIGN(auto pin, co_await slice(first + part * entries));
      for (uint64_t i = entries; i-- > 0;) {
        if (load_refcount(pin.words(), i, order) != 0) co_return first + part* entries + i + 1;
      }
    }
  }
  co_return 0;
}

}  // namespace platter::format::qcow2
