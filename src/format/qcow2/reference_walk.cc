#include "format/qcow2/reference_walk.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/bytes.h"
#include "base/math.h"
#include "base/try.h"
#include "fmt/format.h"
#include "format/qcow2/bitmaps.h"
#include "format/qcow2/metadata_io.h"
#include "format/qcow2/stored_counts.h"

namespace platter::format::qcow2 {

using base::load_big;

namespace {

std::unexpected<Error> memory_exhausted() {
  return fail(ENOMEM, "The image refers to more than the memory that a check may use can hold");
}

}  // namespace

uint64_t counted_clusters(uint64_t file_size, const Geometry& geometry) {
  return geometry.clusters_for(file_size) + 1;
}

bool ReferenceWalk::L1Use::operator<(const L1Use& other) const {
  return offset != other.offset ? offset < other.offset : entries < other.entries;
}

ReferenceWalk::ReferenceWalk(block::Child& file, const Header& header,
                             const ReferenceCounts* stored, block::CheckReporter& reporter,
                             block::CheckResult& result, CheckOptions options)
    : file_(file),
      header_(header),
      geometry_(header.geometry()),
      stored_(stored),
      reporter_(reporter),
      result_(result),
      options_(options),
      file_size_(file.size()) {}

io::Task<Result<void>> ReferenceWalk::run(std::span<const uint64_t> refcount_table,
                                          SnapshotTable snapshots) {
  PLATTER_CO_ASSIGN(counts_, ReferenceCounts::create(counted_clusters(file_size_, geometry_),
                                                     options_.max_memory_bytes));
  result_.total_clusters = geometry_.clusters_for(header_.virtual_size());
  count(0, geometry_.cluster_size());
  PLATTER_CO_TRY(co_await walk_active());
  PLATTER_CO_TRY(co_await walk_inactive(snapshots.snapshots));
  count(header_.snapshots_offset, snapshots.bytes);
  if (header_.crypto_header) count(header_.crypto_header->offset, header_.crypto_header->length);
  PLATTER_CO_TRY(co_await walk_bitmaps());
  count(header_.refcount_table_offset, header_.refcount_table_bytes());
  walk_refcount_blocks(refcount_table);
  if (out_of_memory_) co_return memory_exhausted();
  co_return Result<void>{};
}

void ReferenceWalk::corruption(std::string line) {
  reporter_.report(std::move(line));
  ++result_.corruptions;
}

// ---- Counting

void ReferenceWalk::count(uint64_t offset, uint64_t length, uint64_t weight) {
  if (length == 0) return;
  // The last cluster of the file may be incomplete: what ends within it is in order.
  const auto end = base::checked_add(offset, length);
  if (!end || (*end > file_size_ && *end - file_size_ >= geometry_.cluster_size())) {
    corruption(
        fmt::format("ERROR: counting reference for region exceeding the end of the file by "
                    "one cluster or more: offset 0x{:x} size 0x{:x}",
                    offset, length));
    return;
  }
  const uint64_t last = (*end - 1) >> geometry_.cluster_bits;
  for (uint64_t cluster = offset >> geometry_.cluster_bits; cluster <= last; ++cluster) {
    if (!count_cluster(cluster, weight)) return;
  }
}

bool ReferenceWalk::count_cluster(uint64_t cluster, uint64_t weight) {
  const uint64_t old = counts_.get(cluster);
  uint64_t value = 0;
  if (__builtin_add_overflow(old, weight, &value) || value > geometry_.max_refcount())
      [[unlikely]] {
    corruption(
        fmt::format("ERROR: overflow cluster offset=0x{:x}", cluster << geometry_.cluster_bits));
    reporter_.report(
        "Use qemu-img amend to increase the refcount entry width or qemu-img convert "
        "to create a clean copy if the image cannot be opened for writing");
    value = geometry_.max_refcount();
  }
  if (counts_.set(cluster, value)) [[likely]]
    return true;
  out_of_memory_ = true;
  return false;
}

uint64_t ReferenceWalk::stored_count(uint64_t offset) const {
  const uint64_t cluster = offset >> geometry_.cluster_bits;
  return cluster < stored_->clusters() ? stored_->get(cluster) : 0;
}

// Clusters of a data file are not counted and never shared.
bool ReferenceWalk::data_copied_disagrees(uint64_t entry) const {
  if (geometry_.external_data) return (entry & kCopiedFlag) == 0;
  return copied_disagrees(entry);
}

bool ReferenceWalk::copied_disagrees(uint64_t entry) const {
  return (stored_count(entry & kOffsetMask) == 1) != ((entry & kCopiedFlag) != 0);
}

// ---- L1 tables

io::Task<Result<std::vector<uint64_t>>> ReferenceWalk::read_table(uint64_t offset,
                                                                  uint64_t entries) {
  std::vector<uint64_t> table(entries);
  auto* bytes = reinterpret_cast<uint8_t*>(table.data());
  PLATTER_CO_TRY(co_await read_padded(file_, offset, {bytes, entries * kTableEntryBytes}));
  for (uint64_t& entry : table) entry = base::from_big_endian(entry);
  co_return table;
}

// Counts the L2 table that the entry names; true if there is one to look into.
bool ReferenceWalk::check_l1_entry(uint64_t entry, uint64_t weight) {
  if (entry & kL1ReservedMask) {
    corruption(fmt::format("ERROR found L1 entry with reserved bits set: {:x}", entry));
  }
  const uint64_t offset = entry & kOffsetMask;
  count(offset, geometry_.cluster_size(), weight);
  if (!geometry_.is_aligned(offset)) {
    corruption(fmt::format("ERROR l2_offset={:x}: Table is not cluster aligned; L1 entry corrupted",
                           offset));
    return false;
  }
  return offset < file_size_;
}

// One use for each table, in the order of their first.
void ReferenceWalk::merge_uses(std::vector<TableUse>& uses) {
  std::ranges::sort(uses, [](const TableUse& a, const TableUse& b) {
    return a.offset != b.offset ? a.offset < b.offset : a.first_index < b.first_index;
  });
  size_t kept = 0;
  for (size_t i = 0; i < uses.size(); ++i) {
    if (kept != 0 && uses[kept - 1].offset == uses[i].offset) {
      uses[kept - 1].weight += uses[i].weight;
    } else {
      uses[kept++] = uses[i];
    }
  }
  uses.resize(kept);
  std::ranges::sort(uses, {}, &TableUse::first_index);
}

io::Task<Result<void>> ReferenceWalk::walk_active() {
  count(header_.l1_table_offset, header_.l1_bytes());
  PLATTER_CO_ASSIGN(auto l1, co_await read_table(header_.l1_table_offset, header_.l1_entries));
  std::vector<TableUse> uses;
  for (size_t i = 0; i < l1.size(); ++i) {
    if (l1[i] == 0) continue;
    if (stored_ && copied_disagrees(l1[i])) ++copied_mismatches_;
    if (check_l1_entry(l1[i], 1)) uses.push_back({l1[i] & kOffsetMask, i, 1});
  }
  merge_uses(uses);
  co_return co_await walk_l2_tables(std::move(uses), true);
}

io::Task<Result<void>> ReferenceWalk::walk_inactive(std::span<const Snapshot> snapshots) {
  // Snapshots share most of their tables: every L1 and every L2 table is looked at once, with the
  // number of references to it.
  std::vector<L1Use> l1_uses;
  for (const Snapshot& snapshot : snapshots) {
    if (auto valid = check_snapshot_l1(snapshot, geometry_); !valid) {
      corruption("ERROR " + valid.error().message());
      continue;
    }
    l1_uses.push_back({snapshot.l1_table_offset, snapshot.l1_entries, 1});
  }
  std::sort(l1_uses.begin(), l1_uses.end());
  std::vector<TableUse> uses;
  uint64_t bytes_left = options_.max_memory_bytes;
  for (size_t i = 0; i < l1_uses.size();) {
    L1Use use = l1_uses[i];
    for (++i; i < l1_uses.size() && !(use < l1_uses[i]); ++i) ++use.weight;
    const uint64_t bytes = use.entries * kTableEntryBytes;
    count(use.offset, bytes, use.weight);
    if (bytes > bytes_left) co_return memory_exhausted();
    bytes_left -= bytes;
    PLATTER_CO_ASSIGN(auto l1, co_await read_table(use.offset, use.entries));
    for (const uint64_t entry : l1) {
      if (entry == 0 || !check_l1_entry(entry, use.weight)) continue;
      uses.push_back({entry & kOffsetMask, uses.size(), use.weight});
    }
  }
  merge_uses(uses);
  co_return co_await walk_l2_tables(std::move(uses), false);
}

// ---- L2 tables

io::Task<Result<void>> ReferenceWalk::walk_l2_tables(std::vector<TableUse> uses, bool active) {
  std::vector<uint64_t> offsets;
  offsets.reserve(uses.size());
  for (const TableUse& use : uses) offsets.push_back(use.offset);
  TableReader reader(file_, offsets, geometry_.cluster_size());
  if (options_.meter != nullptr) options_.meter->expect(offsets.size() * geometry_.cluster_size());
  for (;;) {
    const TableReader::Batch batch = co_await reader.next();
    if (batch.count == 0) co_return Result<void>{};
    if (options_.meter != nullptr) options_.meter->add(batch.count * geometry_.cluster_size());
    for (size_t i = batch.first; i < batch.first + batch.count; ++i) {
      const auto table = reader.table(i);
      if (!table) {
        reporter_.report("ERROR: Could not read L2 table: " + table.error().message());
        ++result_.check_errors;
        continue;
      }
      walk_l2(*table, uses[i], active);
      if (out_of_memory_) co_return memory_exhausted();
    }
  }
}

void ReferenceWalk::walk_l2(std::span<const uint8_t> table, const TableUse& use, bool active) {
  next_contiguous_ = 0;  // fragments are counted within a table
  const uint64_t stride = geometry_.l2_entry_bytes();
  for (size_t offset = 0; offset < table.size(); offset += stride) {
    uint64_t entry = 0;
    std::memcpy(&entry, table.data() + offset, sizeof entry);
    if (geometry_.extended_l2) {
      const ExtendedEntry whole = {base::from_big_endian(entry),
                                   load_big<uint64_t>(table, offset + kTableEntryBytes)};
      if (!check_bitmap(whole, offset / stride)) continue;
    }
    if (entry == 0) continue;
    entry = base::from_big_endian(entry);
    if (entry & kCompressedFlag) {
      if (geometry_.external_data) {
        corruption(fmt::format("ERROR compressed cluster {} with data file, entry=0x{:x}",
                               offset / stride, entry));
      } else {
        walk_compressed(entry, use.weight, active);
      }
      continue;
    }
    if (entry & kL2ReservedMask) {
      corruption(fmt::format("ERROR found l2 entry with reserved bits set: {:x}", entry));
    }
    if (!is_allocated(entry)) continue;
    walk_allocated(entry, use.weight, active);
    if (geometry_.external_data) {
      walk_external(entry, use.first_index * geometry_.l2_coverage() +
                               (offset / stride << geometry_.cluster_bits));
    }
  }
}

// False: the entry is not looked into.
bool ReferenceWalk::check_bitmap(const ExtendedEntry& entry, uint64_t index) {
  if (bitmap_is_valid(entry, geometry_)) [[likely]]
    return true;
  const bool compressed = (entry.entry & kCompressedFlag) != 0;
  if (compressed) {
    corruption(
        fmt::format("ERROR compressed cluster {} with non-zero subcluster allocation bitmap, "
                    "entry=0x{:x}",
                    index, entry.entry));
  } else if (names_host(entry.entry, geometry_)) {
    corruption(
        fmt::format("ERROR offset={:x}: Allocated cluster has corrupted subcluster allocation "
                    "bitmap",
                    entry.entry & kOffsetMask));
  } else {
    corruption("ERROR: Unallocated cluster has non-zero subcluster allocation map");
  }
  return !compressed;
}

void ReferenceWalk::walk_compressed(uint64_t entry, uint64_t weight, bool active) {
  const CompressedSpan span = decode_compressed(entry, geometry_.cluster_bits);
  if (entry & kCopiedFlag) {
    corruption(
        fmt::format("ERROR: coffset=0x{:x}: copied flag must never be set for compressed "
                    "clusters",
                    span.host_offset));
  }
  count(span.host_offset, span.length, weight);
  if (!active) return;
  ++result_.allocated_clusters;
  ++result_.compressed_clusters;
  ++result_.fragmented_clusters;  // by nature
}

bool ReferenceWalk::is_preallocated(uint64_t entry) const {
  return !geometry_.extended_l2 && (entry & kZeroFlag) != 0;
}

void ReferenceWalk::walk_allocated(uint64_t entry, uint64_t weight, bool active) {
  const uint64_t offset = entry & kOffsetMask;
  const uint64_t end = offset + geometry_.cluster_size();
  if (active) {
    ++result_.allocated_clusters;
    if (next_contiguous_ != 0 && offset != next_contiguous_) ++result_.fragmented_clusters;
    next_contiguous_ = end;
    if (stored_ && data_copied_disagrees(entry)) ++copied_mismatches_;
  }
  if (geometry_.is_aligned(offset) && (end <= file_size_ || geometry_.external_data)) [[likely]] {
    if (!geometry_.external_data) count_cluster(offset >> geometry_.cluster_bits, weight);
    return;
  }
  if (!geometry_.is_aligned(offset)) {
    corruption(
        fmt::format("ERROR offset={:x}: {} cluster is not properly aligned; L2 entry corrupted.",
                    offset, is_preallocated(entry) ? "Preallocated" : "Data"));
  }
  if (!geometry_.external_data) count(offset, geometry_.cluster_size(), weight);
}

// It must be where the data file has that cluster.
void ReferenceWalk::walk_external(uint64_t entry, uint64_t guest_offset) {
  const uint64_t offset = entry & kOffsetMask;
  if (offset == guest_offset || !geometry_.is_aligned(offset)) return;
  corruption(
      fmt::format("ERROR offset={:x}: Data cluster is not at its guest offset {:x} in the "
                  "external data file",
                  offset, guest_offset));
}

bool ReferenceWalk::is_allocated(uint64_t entry) const {
  if ((entry & kOffsetMask) != 0) return true;
  return names_host(entry, geometry_) && !is_preallocated(entry);
}

// ---- The rest

io::Task<Result<void>> ReferenceWalk::walk_bitmaps() {
  if (!header_.bitmaps) co_return Result<void>{};
  count(header_.bitmaps->directory_offset, header_.bitmaps->directory_size);
  auto bitmaps = co_await read_bitmap_directory(file_, header_);
  if (!bitmaps) {
    corruption("ERROR " + bitmaps.error().message());
    co_return Result<void>{};
  }
  uint64_t bytes_left = options_.max_memory_bytes;
  for (const Bitmap& bitmap : *bitmaps) {
    const uint64_t bytes = bitmap.table_entries * kTableEntryBytes;
    count(bitmap.table_offset, bytes);
    if (!base::range_within(bitmap.table_offset, bytes, file_size_)) continue;
    if (bytes > bytes_left) co_return memory_exhausted();
    bytes_left -= bytes;
    PLATTER_CO_ASSIGN(auto table, co_await read_table(bitmap.table_offset, bitmap.table_entries));
    for (const uint64_t entry : table) {
      const uint64_t offset = entry & kOffsetMask;
      if ((entry & kBitmapReservedMask) || !geometry_.is_aligned(offset) ||
          (offset && (entry & 1))) {
        corruption(
            fmt::format("ERROR bitmap '{}' has an invalid table entry: {:x}", bitmap.name, entry));
      } else if (offset != 0) {
        count(offset, geometry_.cluster_size());
      }
    }
  }
  co_return Result<void>{};
}

void ReferenceWalk::walk_refcount_blocks(std::span<const uint64_t> refcount_table) {
  for (size_t i = 0; i < refcount_table.size(); ++i) {
    const uint64_t entry = refcount_table[i];
    if (entry == 0) continue;
    const uint64_t offset = entry & kRefcountTableOffsetMask;
    if (entry & kRefcountTableReservedMask) {
      corruption(fmt::format("ERROR refcount table entry {} has reserved bits set", i));
    } else if (!geometry_.is_aligned(offset)) {
      corruption(
          fmt::format("ERROR refcount block {} is not cluster aligned; refcount table entry "
                      "corrupted",
                      i));
    } else if (offset >= file_size_) {
      corruption(fmt::format("ERROR refcount block {} is outside image", i));
    } else {
      count(offset, geometry_.cluster_size());
      const uint64_t references = counts_.get(offset >> geometry_.cluster_bits);
      if (references != 1) {
        corruption(fmt::format("ERROR refcount block {} refcount={}", i, references));
      }
    }
  }
}

io::Task<Result<void>> ReferenceWalk::report_copied_mismatches(
    std::span<const uint64_t> refcount_table) {
  refcount_table_ = refcount_table;
  PLATTER_CO_ASSIGN(auto l1, co_await read_table(header_.l1_table_offset, header_.l1_entries));
  std::vector<TableUse> uses;
  for (size_t i = 0; i < l1.size(); ++i) {
    const uint64_t offset = l1[i] & kOffsetMask;
    if (offset != 0 && geometry_.is_aligned(offset) && offset < file_size_) {
      uses.push_back({offset, i, 1});
    }
  }
  merge_uses(uses);
  std::vector<uint64_t> offsets;
  for (const TableUse& use : uses) offsets.push_back(use.offset);
  TableReader reader(file_, offsets, geometry_.cluster_size());
  uint64_t next_l1 = 0;
  for (;;) {
    const TableReader::Batch batch = co_await reader.next();
    if (batch.count == 0) break;
    for (size_t i = batch.first; i < batch.first + batch.count; ++i) {
      for (; next_l1 <= uses[i].first_index; ++next_l1) {
        co_await report_copied_flag_of_l1(next_l1, l1[next_l1]);
      }
      if (const auto table = reader.table(i)) co_await report_copied_flags_of_l2(*table);
    }
  }
  for (; next_l1 < l1.size(); ++next_l1) {
    co_await report_copied_flag_of_l1(next_l1, l1[next_l1]);
  }
  co_return Result<void>{};
}

io::Task<uint64_t> ReferenceWalk::exact_count(uint64_t offset) {
  const uint64_t cluster = offset >> geometry_.cluster_bits;
  // The last one that is stored lies past the file's end, where its count may be meaningless.
  if (cluster + 1 < stored_->clusters()) return io::Task<uint64_t>::ready(stored_->get(cluster));
  return read_stored_count(file_, header_, refcount_table_, cluster);
}

io::Task<void> ReferenceWalk::report_copied_flag_of_l1(uint64_t index, uint64_t entry) {
  if (entry == 0 || !copied_disagrees(entry)) co_return;
  const uint64_t stored = co_await exact_count(entry & kOffsetMask);
  if ((stored == 1) == ((entry & kCopiedFlag) != 0)) co_return;
  corruption(fmt::format("ERROR OFLAG_COPIED L2 cluster: l1_index={} l1_entry={:x} refcount={}",
                         index, entry, stored));
}

io::Task<void> ReferenceWalk::report_copied_flags_of_l2(std::span<const uint8_t> table) {
  for (size_t offset = 0; offset < table.size(); offset += geometry_.l2_entry_bytes()) {
    const uint64_t entry = load_big<uint64_t>(table, offset);
    if ((entry & kCompressedFlag) || !is_allocated(entry) || !data_copied_disagrees(entry))
      continue;
    const uint64_t stored = geometry_.external_data ? 1 : co_await exact_count(entry & kOffsetMask);
    if ((stored == 1) == ((entry & kCopiedFlag) != 0)) continue;
    corruption(
        fmt::format("ERROR OFLAG_COPIED data cluster: l2_entry={:x} refcount={}", entry, stored));
  }
}

}  // namespace platter::format::qcow2
