#include "format/qcow2/table_switch.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <optional>

#include "base/bytes.h"
#include "base/try.h"
#include "format/qcow2/metadata_io.h"
#include "format/qcow2/stored_counts.h"

namespace platter::format::qcow2 {
namespace {

constexpr uint64_t kMaxMemoryBytes = uint64_t{1} << 30;  // of each set of counts

std::unexpected<Error> corrupt(std::string what) {
  return fail(EIO, fmt::format("qcow2: Image is corrupt: {}; a check tells more", what));
}
std::unexpected<Error> out_of_memory() {
  return fail(ENOMEM, "qcow2: The reference counts of the image need too much memory");
}

}  // namespace

TableSwitch::TableSwitch(Image& image)
    : image_(image), geometry_(image.geometry), file_(*image.file) {}

io::Task<Result<void>> TableSwitch::load(uint64_t new_bytes) {
  PLATTER_CO_ASSIGN(table_, co_await read_refcount_table(file_, image_.header));
  for (size_t i = 0; i < table_.size(); ++i) {
    const uint64_t offset = table_[i] & kRefcountTableOffsetMask;
    if (offset != table_[i] || !geometry_.is_aligned(offset) || offset > kMaxHostOffset)
      co_return corrupt(fmt::format("refcount table entry {} is {:#x}", i, table_[i]));
  }
  co_return co_await load_stored(new_bytes, /*tolerate=*/false);
}

io::Task<Result<void>> TableSwitch::load_counted(const ReferenceCounts& counts, bool only_lower,
                                                 uint64_t new_bytes,
                                                 block::CheckReporter& reporter) {
  PLATTER_CO_ASSIGN(table_, co_await read_refcount_table(file_, image_.header));
  for (uint64_t& entry : table_) {
    // What is no block there is made anew where it is needed.
    if ((entry & kRefcountTableReservedMask) != 0 || !geometry_.is_aligned(entry) ||
        entry >= file_.size()) {
      entry = 0;
    }
  }
  PLATTER_CO_TRY(co_await load_stored(new_bytes, /*tolerate=*/true));
  const uint64_t per_block = geometry_.refcount_block_entries();
  for (uint64_t block = 0; block < blocks_.size(); ++block) {
    const uint64_t first = block * per_block;
    const uint64_t place = block < table_.size() ? table_[block] : 0;
    if (place == 0 && first >= counts.clusters()) continue;
    if (place != 0 && counts.get(place >> geometry_.cluster_bits) != 1) move_block(block);
    const uint64_t end = std::min(first + per_block, next_.clusters());
    for (uint64_t cluster = first; cluster < end; ++cluster) {
      const uint64_t stored = next_.get(cluster);
      const uint64_t right = cluster < counts.clusters() ? counts.get(cluster) : 0;
      if (stored == right || (only_lower && stored < right)) continue;
      reporter.report(
          fmt::format("Repairing cluster {} refcount={} reference={}", cluster, stored, right));
      PLATTER_CO_TRY(store(cluster, right));
    }
  }
  co_return Result<void>{};
}

// `tolerate`: what cannot be read counts nothing.
io::Task<Result<void>> TableSwitch::load_stored(uint64_t new_bytes, bool tolerate) {
  const Header& header = image_.header;
  uint64_t blocks = table_.size();
  while (blocks != 0 && table_[blocks - 1] == 0) --blocks;
  const uint64_t used =
      std::max(geometry_.clusters_for(file_.size()), blocks << geometry_.refcount_block_bits());
  // Every block may have to move, and the table; the new ones count themselves.
  const uint64_t wanted = used + geometry_.clusters_for(new_bytes) + 16;
  const uint64_t per_block = geometry_.refcount_block_entries();
  const uint64_t new_blocks = wanted / (per_block - 1) + 2;
  const uint64_t clusters = wanted + 2 * new_blocks +
                            geometry_.clusters_for(2 * new_blocks * kTableEntryBytes) +
                            header.refcount_table_clusters;
  PLATTER_CO_ASSIGN(auto stored,
                    co_await read_stored_counts(file_, header, table_, clusters,
                                                {.max_memory_bytes = kMaxMemoryBytes}));
  if (!stored.unreadable.empty() && !tolerate)
    co_return std::unexpected(std::move(stored.unreadable.front().error));
  next_ = std::move(stored.counts);
  PLATTER_CO_ASSIGN(freed_, ReferenceCounts::create(clusters, kMaxMemoryBytes));
  blocks_.assign(base::divide_round_up(clusters, per_block), BlockState::kClean);
  co_return Result<void>{};
}

Result<void> TableSwitch::change_refcount_order(unsigned order) {
  for (uint64_t& entry : table_) {
    if (entry != 0) PLATTER_TRY(change(entry >> geometry_.cluster_bits, false));
    entry = 0;
  }
  geometry_.refcount_order = order;
  pending_.clear();
  blocks_.assign(base::divide_round_up(next_.clusters(), geometry_.refcount_block_entries()),
                 BlockState::kClean);
  PLATTER_ASSIGN(const auto none, ReferenceCounts::create(next_.clusters(), kMaxMemoryBytes));
  std::optional<uint64_t> too_many;
  ReferenceCounts::for_each_difference(next_, none, [&](uint64_t cluster) {
    if (next_.get(cluster) > geometry_.max_refcount()) {
      too_many = cluster;
      return false;
    }
    move_block(geometry_.refcount_table_index(cluster));
    return true;
  });
  if (!too_many) return {};
  return fail(ENOTSUP, fmt::format("Cannot decrease refcount entry width to {} bits: Cluster at "
                                   "offset {:#x} has a refcount of {}",
                                   geometry_.refcount_bits(), *too_many << geometry_.cluster_bits,
                                   next_.get(*too_many)));
}

// ---- Counts

Result<void> TableSwitch::store(uint64_t cluster, uint64_t count) {
  if (!next_.set(cluster, count)) return out_of_memory();
  move_block(geometry_.refcount_table_index(cluster));
  return {};
}

void TableSwitch::move_block(uint64_t block) {
  if (blocks_[block] != BlockState::kClean) return;
  blocks_[block] = BlockState::kPending;
  pending_.push_back(block);
}

Result<void> TableSwitch::change(uint64_t cluster, bool add) {
  if (cluster >= next_.clusters())
    return corrupt(fmt::format("a reference to cluster {}, outside the file", cluster));
  const uint64_t count = next_.get(cluster);
  if (count == 0) return corrupt(fmt::format("cluster {} is used and not counted", cluster));
  if (add && count == geometry_.max_refcount()) {
    return fail(EINVAL, fmt::format("qcow2: No more than {} references fit in the {} bits of a "
                                    "count",
                                    geometry_.max_refcount(), geometry_.refcount_bits()));
  }
  PLATTER_TRY(store(cluster, add ? count + 1 : count - 1));
  if (!add && count == 1 && !freed_.set(cluster, 1)) return out_of_memory();
  return {};
}

Result<uint64_t> TableSwitch::allocate(uint64_t clusters) {
  uint64_t run = 0;
  for (uint64_t at = search_from_; at < next_.clusters(); ++at) {
    run = is_free(at) ? run + 1 : 0;
    if (run < clusters) continue;
    const uint64_t first = at + 1 - run;
    if (clusters == 1) search_from_ = at + 1;
    for (uint64_t i = first; i <= at; ++i) PLATTER_TRY(store(i, 1));
    highest_ = std::max(highest_, at + 1);
    if ((at << geometry_.cluster_bits) > kMaxHostOffset)
      return fail(EFBIG, "qcow2: The image file would become too large");
    return first << geometry_.cluster_bits;
  }
  return fail(ENOSPC, "qcow2: No room for new tables");
}

Result<uint64_t> TableSwitch::allocate_table(uint64_t bytes) {
  return allocate(geometry_.clusters_for(bytes));
}

Result<void> TableSwitch::drop_table(uint64_t offset, uint64_t bytes) {
  const uint64_t first = offset >> geometry_.cluster_bits;
  for (uint64_t i = 0; i < geometry_.clusters_for(bytes); ++i)
    PLATTER_TRY(change(first + i, false));
  return {};
}

// ---- Trees

io::Task<Result<std::vector<uint64_t>>> TableSwitch::read_l1(uint64_t offset, uint64_t entries) {
  io::AlignedBuffer bytes(std::max<uint64_t>(entries, 1) * kTableEntryBytes);
  std::vector<uint64_t> l1(entries);
  if (entries == 0) co_return l1;
  PLATTER_CO_TRY(co_await read_padded(file_, offset, bytes.view()));
  for (uint64_t i = 0; i < entries; ++i) {
    const uint64_t entry = base::load_big<uint64_t>(bytes.span(), i * kTableEntryBytes);
    l1[i] = entry & kOffsetMask;
    if ((entry & kL1ReservedMask) != 0 || !geometry_.is_aligned(l1[i]))
      co_return corrupt(fmt::format("L1 entry {} is {:#x}", i, entry));
  }
  co_return l1;
}

Result<void> TableSwitch::change_entry(uint64_t entry, bool add) {
  if (geometry_.external_data) return {};  // nothing in this file
  if ((entry & kCompressedFlag) != 0) {
    const CompressedSpan span = decode_compressed(entry, geometry_.cluster_bits);
    const uint64_t first = span.host_offset >> geometry_.cluster_bits;
    const uint64_t last = (span.host_offset + span.length - 1) >> geometry_.cluster_bits;
    for (uint64_t cluster = first; cluster <= last; ++cluster) PLATTER_TRY(change(cluster, add));
    return {};
  }
  const uint64_t offset = entry & kOffsetMask;
  if (offset == 0) return {};
  if (!geometry_.is_aligned(offset)) return corrupt(fmt::format("L2 entry {:#x}", entry));
  return change(offset >> geometry_.cluster_bits, add);
}

size_t TableSwitch::run_length(std::span<const uint8_t> table, size_t at) const {
  const size_t step = geometry_.l2_entry_bytes();
  uint64_t expected = base::load_big<uint64_t>(table, at);
  if ((expected & kCompressedFlag) != 0 || (expected & kOffsetMask) == 0 ||
      geometry_.external_data || !geometry_.is_aligned(expected & kOffsetMask))
    return 1;
  const uint64_t first = (expected & kOffsetMask) >> geometry_.cluster_bits;
  const size_t most = ReferenceCounts::left_in_chunk(first);
  size_t entries = 1;
  for (at += step; at < table.size() && entries < most; at += step, ++entries) {
    expected += geometry_.cluster_size();
    if (base::load_big<uint64_t>(table, at) != expected) break;
  }
  return entries;
}

Result<size_t> TableSwitch::change_entries(std::span<const uint8_t> table, size_t at, bool add) {
  const uint64_t entry = base::load_big<uint64_t>(table, at);
  const size_t entries = run_length(table, at);
  if (entries > 1)
    PLATTER_TRY(change_run((entry & kOffsetMask) >> geometry_.cluster_bits, entries, add));
  else if (entry != 0)
    PLATTER_TRY(change_entry(entry, add));
  return entries;
}

// What is as usual, counted and not for the last time, is changed all at once.
Result<void> TableSwitch::change_run(uint64_t cluster, uint64_t clusters, bool add) {
  const auto most = static_cast<uint8_t>(std::min<uint64_t>(geometry_.max_refcount(), UINT8_MAX));
  const bool shifted = add ? next_.shift(cluster, clusters, 1, most - 1, 1)
                           : next_.shift(cluster, clusters, 2, UINT8_MAX, -1);
  if (!shifted) {
    for (uint64_t i = 0; i < clusters; ++i) PLATTER_TRY(change(cluster + i, add));
    return {};
  }
  for (uint64_t block = geometry_.refcount_table_index(cluster);
       block <= geometry_.refcount_table_index(cluster + clusters - 1); ++block)
    move_block(block);
  return {};
}

io::Task<Result<void>> TableSwitch::change_tree(std::vector<uint64_t> l1, bool add) {
  std::erase(l1, 0);
  TableReader reader(file_, l1, geometry_.cluster_size());
  for (;;) {
    const TableReader::Batch batch = co_await reader.next();
    if (batch.count == 0) co_return Result<void>{};
    for (size_t i = batch.first; i < batch.first + batch.count; ++i) {
      PLATTER_CO_ASSIGN(const auto table, reader.table(i));
      PLATTER_CO_TRY(change(l1[i] >> geometry_.cluster_bits, add));
      for (size_t at = 0; at < table.size();) {
        PLATTER_CO_ASSIGN(const size_t entries, change_entries(table, at, add));
        at += entries * geometry_.l2_entry_bytes();
      }
    }
  }
}

// Whether that changed it.
bool TableSwitch::settle_entry_flag(uint8_t* bytes) const {
  const std::span<uint8_t> place(bytes, kTableEntryBytes);
  const uint64_t entry = base::load_big<uint64_t>(place, 0);
  if (entry == 0) return false;
  const uint64_t offset = entry & kOffsetMask;
  const uint64_t cluster = offset >> geometry_.cluster_bits;
  // What is in a data file is never shared.
  const bool counted_once =
      geometry_.external_data || (cluster < next_.clusters() && next_.get(cluster) == 1);
  const bool copied =
      (entry & kCompressedFlag) == 0 && names_host(entry, geometry_) && counted_once;
  const uint64_t settled = copied ? entry | kCopiedFlag : entry & ~kCopiedFlag;
  if (settled != entry) base::store_big<uint64_t>(place, 0, settled);
  return settled != entry;
}

size_t TableSwitch::settle_entries(std::span<uint8_t> table, size_t at, bool& changed) const {
  const size_t step = geometry_.l2_entry_bytes();
  const size_t entries = run_length(table, at);
  const uint64_t entry = base::load_big<uint64_t>(table, at);
  const auto count = entries > 1
                         ? next_.common((entry & kOffsetMask) >> geometry_.cluster_bits, entries)
                         : std::nullopt;
  if (!count) {
    for (size_t i = 0; i < entries; ++i)
      changed = settle_entry_flag(table.data() + at + i * step) || changed;
    return entries;
  }
  // Where the first one's flag is right, the others' are.
  const uint64_t settled = *count == 1 ? entry | kCopiedFlag : entry & ~kCopiedFlag;
  if (settled == entry) return entries;
  for (size_t i = 0; i < entries; ++i)
    base::store_big<uint64_t>(table, at + i * step, settled + (i << geometry_.cluster_bits));
  changed = true;
  return entries;
}

io::Task<Result<void>> TableSwitch::settle_flags(std::vector<uint64_t>& l1, uint64_t references) {
  std::vector<uint64_t> offsets, indexes;
  for (size_t i = 0; i < l1.size(); ++i) {
    if (l1[i] == 0) continue;
    offsets.push_back(l1[i]);
    indexes.push_back(i);
  }
  std::vector<uint8_t> content(geometry_.cluster_size());
  TableReader reader(file_, offsets, geometry_.cluster_size());
  for (;;) {
    const TableReader::Batch batch = co_await reader.next();
    if (batch.count == 0) co_return co_await write_staged();
    for (size_t i = batch.first; i < batch.first + batch.count; ++i) {
      PLATTER_CO_ASSIGN(const auto table, reader.table(i));
      std::ranges::copy(table, content.begin());
      bool changed = false;
      for (size_t at = 0; at < content.size();)
        at += settle_entries(content, at, changed) * geometry_.l2_entry_bytes();
      if (!changed) continue;
      PLATTER_CO_ASSIGN(const uint64_t copy, allocate(1));
      PLATTER_CO_TRY(store(copy >> geometry_.cluster_bits, references));
      for (uint64_t drop = 0; drop < references; ++drop)
        PLATTER_CO_TRY(change(offsets[i] >> geometry_.cluster_bits, false));
      l1[indexes[i]] = copy;
      PLATTER_CO_TRY(co_await stage(copy, content));
    }
  }
}

void TableSwitch::settle_l1_flags(std::vector<uint64_t>& l1) const {
  for (uint64_t& entry : l1) {
    if (entry != 0 && next_.get(entry >> geometry_.cluster_bits) == 1) entry |= kCopiedFlag;
  }
}

// ---- Writing

io::Task<Result<void>> TableSwitch::stage(uint64_t offset, std::span<const uint8_t> bytes) {
  if (staging_.size() == 0) staging_ = io::AlignedBuffer(kStagingBytes);
  while (!bytes.empty()) {
    const auto piece = bytes.first(std::min(bytes.size(), staging_.size() - staging_used_));
    staging_.view(staging_used_, piece.size()).copy_from(piece);
    staged_.push_back({offset, staging_used_, piece.size()});
    staging_used_ += piece.size();
    offset += piece.size();
    bytes = bytes.subspan(piece.size());
    if (staging_used_ == staging_.size()) PLATTER_CO_TRY(co_await write_staged());
  }
  co_return Result<void>{};
}

// Tables that lie one after the other become one write.
io::Task<Result<void>> TableSwitch::write_staged() {
  std::vector<io::Task<Result<void>>> writes;
  for (size_t i = 0; i < staged_.size();) {
    const Write& first = staged_[i];
    size_t bytes = first.bytes;
    for (++i; i < staged_.size() && staged_[i].offset == first.offset + bytes; ++i)
      bytes += staged_[i].bytes;
    writes.push_back(file_.write(first.offset, staging_.view(first.position, bytes)));
  }
  auto results = co_await io::when_all(std::move(writes));
  staging_used_ = 0;
  staged_.clear();
  for (auto& result : results) PLATTER_CO_TRY(std::move(result));
  co_return Result<void>{};
}

io::Task<Result<void>> TableSwitch::write_l1(uint64_t offset, const std::vector<uint64_t>& l1) {
  if (l1.empty()) co_return Result<void>{};
  std::vector<uint8_t> bytes(geometry_.clusters_for(l1.size() * kTableEntryBytes)
                             << geometry_.cluster_bits);
  for (size_t i = 0; i < l1.size(); ++i)
    base::store_big<uint64_t>(bytes, i * kTableEntryBytes, l1[i]);
  PLATTER_CO_TRY(co_await stage(offset, bytes));
  co_return co_await write_staged();
}

// Decides where the blocks whose counts change go, and the table. Placing one changes counts again.
Result<void> TableSwitch::place_refcounts() {
  const Header& header = image_.header;
  const uint64_t most = kMaxRefcountTableBytes >> geometry_.cluster_bits;
  const uint64_t clusters =
      std::clamp<uint64_t>(geometry_.clusters_for(blocks_.size() * kTableEntryBytes),
                           header.refcount_table_clusters, std::max<uint64_t>(most, 1));
  table_.resize((clusters << geometry_.cluster_bits) / kTableEntryBytes);
  PLATTER_ASSIGN(table_offset_, allocate(clusters));
  PLATTER_TRY(drop_table(header.refcount_table_offset, header.refcount_table_bytes()));
  while (!pending_.empty()) {
    const uint64_t block = pending_.back();
    pending_.pop_back();
    if (block >= table_.size())
      return fail(EFBIG, "qcow2: The refcount table would become too large");
    blocks_[block] = BlockState::kPlaced;
    const uint64_t old = table_[block];
    PLATTER_ASSIGN(table_[block], allocate(1));
    if (old != 0) PLATTER_TRY(change(old >> geometry_.cluster_bits, false));
  }
  return {};
}

io::Task<Result<void>> TableSwitch::write_refcounts() {
  const uint64_t entries = geometry_.refcount_block_entries();
  std::vector<uint8_t> content(geometry_.cluster_size());
  for (uint64_t block = 0; block < blocks_.size(); ++block) {
    if (blocks_[block] != BlockState::kPlaced) continue;
    std::ranges::fill(content, 0);
    const uint64_t first = block * entries;
    const uint64_t count = std::min(entries, next_.clusters() - first);
    for (uint64_t i = 0; i < count; ++i) {
      if (const uint64_t value = next_.get(first + i); value != 0)
        store_refcount(content.data(), i, geometry_.refcount_order, value);
    }
    PLATTER_CO_TRY(co_await stage(table_[block], content));
  }
  PLATTER_CO_TRY(co_await write_staged());
  co_return co_await write_l1(table_offset_, table_);
}

io::Task<Result<void>> TableSwitch::write_header(uint64_t l1_offset, uint64_t l1_entries,
                                                 uint64_t snapshots_offset, uint64_t snapshot_count,
                                                 uint64_t size) {
  constexpr uint64_t kFirst = field::kSize;
  const bool width_changes = geometry_.refcount_order != image_.header.refcount_order;
  const uint64_t end = width_changes ? field::kHeaderLength : kHeaderBytesV2;
  const auto fields = [end](const Header& header) {
    std::vector<uint8_t> bytes(end - kFirst);
    const std::span<uint8_t> out(bytes);
    base::store_big(out, 0, header.size);
    base::store_big(out, 32 - kFirst, static_cast<uint32_t>(header.crypt_method));
    base::store_big(out, field::kL1Entries - kFirst, header.l1_entries);
    base::store_big(out, field::kL1TableOffset - kFirst, header.l1_table_offset);
    base::store_big(out, field::kRefcountTableOffset - kFirst, header.refcount_table_offset);
    base::store_big(out, field::kRefcountTableClusters - kFirst, header.refcount_table_clusters);
    base::store_big(out, field::kSnapshotCount - kFirst, header.snapshot_count);
    base::store_big(out, field::kSnapshotsOffset - kFirst, header.snapshots_offset);
    if (end == kHeaderBytesV2) return bytes;
    base::store_big(out, field::kIncompatible - kFirst, header.incompatible);
    base::store_big(out, field::kCompatible - kFirst, header.compatible);
    base::store_big(out, field::kAutoclear - kFirst, header.autoclear);
    base::store_big(out, field::kRefcountOrder - kFirst, header.refcount_order);
    return bytes;
  };
  auto features = co_await image_.features.lock();
  Header next = image_.header;
  next.size = size;
  next.l1_entries = static_cast<uint32_t>(l1_entries);
  next.l1_table_offset = l1_offset;
  next.refcount_table_offset = table_offset_;
  next.refcount_table_clusters =
      static_cast<uint32_t>(geometry_.clusters_for(table_.size() * kTableEntryBytes));
  next.snapshot_count = static_cast<uint32_t>(snapshot_count);
  next.snapshots_offset = snapshots_offset;
  next.refcount_order = geometry_.refcount_order;
  PLATTER_CO_TRY(
      co_await image_.replace_header_fields(kFirst, fields(image_.header), fields(next)));
  image_.header = std::move(next);
  image_.geometry = image_.header.geometry();
  co_return Result<void>{};
}

io::Task<Result<void>> TableSwitch::commit(const std::vector<uint64_t>& l1,
                                           std::span<const Snapshot> snapshots, uint64_t size) {
  const Header& header = image_.header;
  PLATTER_CO_ASSIGN(const auto snapshot_bytes, serialise_snapshot_table(snapshots));
  PLATTER_CO_ASSIGN(const auto old_snapshots, co_await read_snapshot_table(file_, header));
  uint64_t l1_offset = header.l1_table_offset;
  if (!l1.empty()) {
    PLATTER_CO_ASSIGN(l1_offset, allocate_table(l1.size() * kTableEntryBytes));
  }
  uint64_t snapshots_offset = 0;
  if (!snapshots.empty()) {
    PLATTER_CO_ASSIGN(snapshots_offset, allocate_table(snapshot_bytes.size()));
    std::vector<uint8_t> padded(snapshot_bytes);
    padded.resize(geometry_.clusters_for(padded.size()) << geometry_.cluster_bits);
    PLATTER_CO_TRY(co_await stage(snapshots_offset, padded));
  }
  PLATTER_CO_TRY(co_await write_l1(l1_offset, l1));
  PLATTER_CO_TRY(drop_table(header.l1_table_offset, header.l1_bytes()));
  PLATTER_CO_TRY(drop_table(header.snapshots_offset, old_snapshots.bytes));
  PLATTER_CO_TRY(place_refcounts());
  PLATTER_CO_TRY(co_await write_refcounts());
  PLATTER_CO_TRY(co_await write_staged());
  PLATTER_CO_TRY(co_await file_.flush());
  co_return co_await write_header(l1_offset, l1.size(), snapshots_offset, snapshots.size(), size);
}

std::vector<TableSwitch::HostRange> TableSwitch::freed() const {
  std::vector<HostRange> ranges;
  const uint64_t cluster_size = geometry_.cluster_size();
  ReferenceCounts none = ReferenceCounts::create(freed_.clusters(), kMaxMemoryBytes).value();
  ReferenceCounts::for_each_difference(freed_, none, [&](uint64_t cluster) {
    if (next_.get(cluster) != 0) return true;
    const uint64_t offset = cluster << geometry_.cluster_bits;
    if (!ranges.empty() && ranges.back().offset + ranges.back().bytes == offset) {
      ranges.back().bytes += cluster_size;
    } else {
      ranges.push_back({offset, cluster_size});
    }
    return true;
  });
  return ranges;
}

}  // namespace platter::format::qcow2
