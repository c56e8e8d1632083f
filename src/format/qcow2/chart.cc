#include "format/qcow2/chart.h"

#include <algorithm>
#include <cerrno>

#include "base/bytes.h"
#include "base/math.h"
#include "base/try.h"
#include "format/qcow2/bitmaps.h"
#include "format/qcow2/metadata_io.h"
#include "format/qcow2/reference_walk.h"
#include "format/qcow2/snapshots.h"
#include "format/qcow2/stored_counts.h"

namespace platter::format::qcow2 {
namespace {

using block::FileUse;
using block::GuestRun;
using block::GuestUse;

class Silence : public block::CheckReporter {
 public:
  void report(std::string) override {}
};

// An L1 table as a header or a snapshot names it.
struct MappingRoot {
  uint64_t l1_offset;
  uint64_t l1_entries;
  uint64_t disk_size;
  std::optional<size_t> snapshot;
};

class Chart {
 public:
  Chart(block::Child& file, const Header& header, block::LayoutVisitor& visitor,
        CheckOptions options)
      : file_(file),
        header_(header),
        geometry_(header.geometry()),
        visitor_(visitor),
        options_(options) {}

  io::Task<Result<block::CheckResult>> run();

 private:
  struct L2Table {
    uint64_t l1_index;
    uint64_t offset;
  };

  void mark(FileUse use, uint64_t offset, uint64_t length);
  void end_file_run();
  void add(const GuestRun& run);
  void end_guest_run();

  io::Task<Result<std::vector<uint64_t>>> read_entries(uint64_t offset, uint64_t count);
  io::Task<Result<void>> mark_metadata(std::span<const uint64_t> refcount_table,
                                       const SnapshotTable& snapshots);
  io::Task<Result<void>> mark_bitmaps();
  io::Task<Result<void>> follow(MappingRoot root);
  void follow_l2(std::span<const uint8_t> table, const L2Table& place, const MappingRoot& root);
  void follow_entry(const ExtendedEntry& entry, uint64_t guest_offset, const MappingRoot& root);
  void follow_part(uint64_t entry, const Cluster& cluster, uint64_t guest_offset, uint64_t length,
                   const MappingRoot& root);
  bool is_shared(uint64_t host_offset) const;
  io::Task<Result<void>> mark_the_rest(std::span<const uint64_t> refcount_table);

  block::Child& file_;
  const Header& header_;
  const Geometry geometry_;
  block::LayoutVisitor& visitor_;
  const CheckOptions options_;
  block::CheckResult result_;
  ReferenceCounts references_;
  ReferenceCounts shown_;  // 1: has been given to the visitor
  bool out_of_memory_ = false;
  // Runs that may still grow.
  FileUse file_use_ = FileUse::kHeader;
  uint64_t file_begin_ = 0;
  uint64_t file_end_ = 0;
  GuestRun guest_;
};

// ---- Runs

void Chart::mark(FileUse use, uint64_t offset, uint64_t length) {
  const auto end = base::checked_add(offset, length);
  if (length == 0 || !end) return;
  const uint64_t last = std::min((*end - 1) >> geometry_.cluster_bits, shown_.clusters() - 1);
  for (uint64_t cluster = offset >> geometry_.cluster_bits; cluster <= last; ++cluster) {
    if (shown_.get(cluster) != 0) continue;
    if (!shown_.set(cluster, 1)) {
      out_of_memory_ = true;
      return;
    }
    const uint64_t begin = cluster << geometry_.cluster_bits;
    if (use != file_use_ || begin != file_end_) {
      end_file_run();
      file_use_ = use;
      file_begin_ = begin;
    }
    file_end_ = begin + geometry_.cluster_size();
  }
}

void Chart::end_file_run() {
  // The last cluster of a file may be incomplete, or not be there.
  const uint64_t end = std::min(file_end_, file_.size());
  if (end > file_begin_) visitor_.file_run(file_use_, file_begin_, end - file_begin_);
  file_begin_ = file_end_ = 0;
}

void Chart::add(const GuestRun& run) {
  const bool same_kind = guest_.length != 0 && guest_.use == run.use &&
                         guest_.snapshot == run.snapshot && guest_.shared == run.shared &&
                         guest_.offset + guest_.length == run.offset;
  // Compressed clusters lie close together, never one after another to the byte.
  const bool same_place =
      guest_.host_offset.has_value() == run.host_offset.has_value() &&
      (!run.host_offset || (run.use != GuestUse::kCompressed &&
                            *guest_.host_offset + guest_.host_length == *run.host_offset));
  if (same_kind && same_place) {
    guest_.length += run.length;
    guest_.host_length += run.host_length;
    return;
  }
  end_guest_run();
  guest_ = run;
}

void Chart::end_guest_run() {
  if (guest_.length != 0) visitor_.guest_run(guest_);
  guest_ = {};
}

// ---- Metadata

io::Task<Result<std::vector<uint64_t>>> Chart::read_entries(uint64_t offset, uint64_t count) {
  std::vector<uint64_t> entries(count);
  auto* bytes = reinterpret_cast<uint8_t*>(entries.data());
  PLATTER_CO_TRY(co_await read_padded(file_, offset, {bytes, count * kTableEntryBytes}));
  for (uint64_t& entry : entries) entry = base::from_big_endian(entry);
  co_return entries;
}

io::Task<Result<void>> Chart::mark_metadata(std::span<const uint64_t> refcount_table,
                                            const SnapshotTable& snapshots) {
  mark(FileUse::kHeader, 0, geometry_.cluster_size());
  mark(FileUse::kRefcounts, header_.refcount_table_offset, header_.refcount_table_bytes());
  for (const uint64_t entry : refcount_table) {
    const uint64_t offset = entry & kRefcountTableOffsetMask;
    if (offset != 0 && geometry_.is_aligned(offset)) {
      mark(FileUse::kRefcounts, offset, geometry_.cluster_size());
    }
  }
  mark(FileUse::kL1Table, header_.l1_table_offset, header_.l1_bytes());
  mark(FileUse::kSnapshotTable, header_.snapshots_offset, snapshots.bytes);
  if (header_.crypto_header) {
    mark(FileUse::kEncryption, header_.crypto_header->offset, header_.crypto_header->length);
  }
  co_return co_await mark_bitmaps();
}

io::Task<Result<void>> Chart::mark_bitmaps() {
  if (!header_.bitmaps) co_return Result<void>{};
  mark(FileUse::kBitmaps, header_.bitmaps->directory_offset, header_.bitmaps->directory_size);
  const auto bitmaps = co_await read_bitmap_directory(file_, header_);
  if (!bitmaps) co_return Result<void>{};  // the reference walk has counted it as damage
  for (const Bitmap& bitmap : *bitmaps) {
    const uint64_t bytes = bitmap.table_entries * kTableEntryBytes;
    if (!base::range_within(bitmap.table_offset, bytes, file_.size())) continue;
    mark(FileUse::kBitmaps, bitmap.table_offset, bytes);
    PLATTER_CO_ASSIGN(const auto table,
                      co_await read_entries(bitmap.table_offset, bitmap.table_entries));
    for (const uint64_t entry : table) {
      const uint64_t offset = entry & kOffsetMask;
      if (offset != 0) mark(FileUse::kBitmaps, offset, geometry_.cluster_size());
    }
  }
  co_return Result<void>{};
}

// ---- Mappings

bool Chart::is_shared(uint64_t host_offset) const {
  const uint64_t cluster = host_offset >> geometry_.cluster_bits;
  return cluster < references_.clusters() && references_.get(cluster) > 1;
}

io::Task<Result<void>> Chart::follow(MappingRoot root) {
  PLATTER_CO_ASSIGN(const auto l1, co_await read_entries(root.l1_offset, root.l1_entries));
  const FileUse use = root.snapshot ? FileUse::kSnapshotOnly : FileUse::kL2Table;
  std::vector<L2Table> tables;
  std::vector<uint64_t> offsets;
  for (size_t i = 0; i < l1.size(); ++i) {
    const uint64_t offset = l1[i] & kOffsetMask;
    if (offset == 0 || !geometry_.is_aligned(offset) || offset >= file_.size()) continue;
    tables.push_back({i, offset});
    offsets.push_back(offset);
    mark(use, offset, geometry_.cluster_size());
  }
  TableReader reader(file_, offsets, geometry_.cluster_size());
  for (;;) {
    const TableReader::Batch batch = co_await reader.next();
    if (batch.count == 0) break;
    for (size_t i = batch.first; i < batch.first + batch.count; ++i) {
      PLATTER_CO_ASSIGN(const auto table, reader.table(i));
      follow_l2(table, tables[i], root);
    }
  }
  end_guest_run();
  co_return Result<void>{};
}

void Chart::follow_l2(std::span<const uint8_t> table, const L2Table& place,
                      const MappingRoot& root) {
  uint64_t guest_offset = place.l1_index * geometry_.l2_coverage();
  for (size_t i = 0; i < table.size(); i += geometry_.l2_entry_bytes()) {
    ExtendedEntry entry = {.entry = base::load_big<uint64_t>(table, i)};
    if (geometry_.extended_l2) entry.bitmap = base::load_big<uint64_t>(table, i + kTableEntryBytes);
    if (entry != ExtendedEntry{}) follow_entry(entry, guest_offset, root);
    guest_offset += geometry_.cluster_size();
  }
}

// An entry, or its subclusters run by run.
void Chart::follow_entry(const ExtendedEntry& entry, uint64_t guest_offset,
                         const MappingRoot& root) {
  if (!geometry_.extended_l2 || (entry.entry & kCompressedFlag) != 0) {
    const Cluster cluster = decode_l2_entry(entry.entry, geometry_);
    follow_part(entry.entry, cluster, guest_offset, geometry_.cluster_size(), root);
    return;
  }
  // The host cluster as a whole, before its parts.
  const uint64_t host = entry.entry & kOffsetMask;
  const bool beyond = guest_offset >= root.disk_size;
  if (host != 0 && !geometry_.external_data && bitmap_is_valid(entry, geometry_) &&
      geometry_.is_aligned(host)) {
    const FileUse use = beyond                   ? FileUse::kVmState
                        : root.snapshot          ? FileUse::kSnapshotOnly
                        : entry.allocated() != 0 ? FileUse::kData
                                                 : FileUse::kPreallocated;
    mark(use, host, geometry_.cluster_size());
  }
  for (unsigned first = 0; first < kSubclusters;) {
    Cluster part = decode_subcluster(entry, first, geometry_);
    unsigned end = first + 1;
    while (end < kSubclusters && decode_subcluster(entry, end, geometry_).kind == part.kind) ++end;
    const uint64_t in_cluster = uint64_t{first} << geometry_.subcluster_bits();
    part.host_offset += part.host_offset != 0 ? in_cluster : 0;
    follow_part(entry.entry, part, guest_offset + in_cluster,
                uint64_t{end - first} << geometry_.subcluster_bits(), root);
    first = end;
  }
}

void Chart::follow_part(uint64_t entry, const Cluster& cluster, uint64_t guest_offset,
                        uint64_t length, const MappingRoot& root) {
  GuestRun run;
  run.snapshot = root.snapshot;
  run.offset = guest_offset;
  run.length = length;
  FileUse use = FileUse::kData;
  switch (cluster.kind) {
    case ClusterKind::kUnallocated:
    case ClusterKind::kReserved:
    case ClusterKind::kInvalid: return;
    case ClusterKind::kZero: run.use = GuestUse::kZero; break;
    case ClusterKind::kZeroAllocated:
      run.use = GuestUse::kZero;
      use = FileUse::kPreallocated;
      break;
    case ClusterKind::kNormal: break;
    case ClusterKind::kCompressed: {
      const CompressedSpan span = decode_compressed(entry, geometry_.cluster_bits);
      run.use = GuestUse::kCompressed;
      run.host_offset = span.host_offset;
      run.host_length = span.length;
      use = FileUse::kCompressed;
    }
  }
  if (cluster.host_offset != 0 && !geometry_.external_data) {
    run.host_offset = cluster.host_offset;
    run.host_length = length;
    run.shared = is_shared(cluster.host_offset);
  }
  const bool beyond = guest_offset >= root.disk_size;
  if (beyond) {
    use = FileUse::kVmState;
  } else if (root.snapshot) {
    use = FileUse::kSnapshotOnly;
  }
  if (run.host_offset) mark(use, *run.host_offset, run.host_length);
  if (beyond) return;
  run.length = std::min(run.length, root.disk_size - guest_offset);
  add(run);
}

// ---- The whole

io::Task<Result<void>> Chart::mark_the_rest(std::span<const uint64_t> refcount_table) {
  ReferenceCounts::for_each_difference(references_, shown_, [&](uint64_t cluster) {
    if (shown_.get(cluster) == 0) {
      mark(FileUse::kSnapshotOnly, cluster << geometry_.cluster_bits, geometry_.cluster_size());
    }
    return !out_of_memory_;
  });
  PLATTER_CO_ASSIGN(const auto stored,
                    co_await read_stored_counts(file_, header_, refcount_table,
                                                references_.clusters(), options_));
  for (const auto& bad : stored.unreadable) {
    if (!bad.unaligned) co_return std::unexpected(bad.error);
  }
  ReferenceCounts::for_each_difference(stored.counts, references_, [&](uint64_t cluster) {
    if (references_.get(cluster) == 0) {
      mark(FileUse::kLeaked, cluster << geometry_.cluster_bits, geometry_.cluster_size());
      ++result_.leaks;
    }
    return !out_of_memory_;
  });
  end_file_run();
  co_return Result<void>{};
}

io::Task<Result<block::CheckResult>> Chart::run() {
  PLATTER_CO_ASSIGN(const auto snapshots, co_await read_snapshot_table(file_, header_));
  PLATTER_CO_ASSIGN(const auto refcount_table, co_await read_refcount_table(file_, header_));
  Silence silence;
  ReferenceWalk walk(file_, header_, nullptr, silence, result_, options_);
  PLATTER_CO_TRY(co_await walk.run(refcount_table, snapshots));
  if (result_.check_errors != 0)
    co_return std::unexpected(Error::from_errno(EIO, "Could not read all of the image's tables"));
  references_ = walk.take_counts();
  PLATTER_CO_ASSIGN(shown_,
                    ReferenceCounts::create(references_.clusters(), options_.max_memory_bytes));

  PLATTER_CO_TRY(co_await mark_metadata(refcount_table, snapshots));
  PLATTER_CO_TRY(co_await follow(
      {header_.l1_table_offset, header_.l1_entries, header_.virtual_size(), std::nullopt}));
  const size_t charted = std::min(snapshots.snapshots.size(), block::Charted::kMaxChartedSnapshots);
  for (size_t i = 0; i < charted; ++i) {
    const Snapshot& snapshot = snapshots.snapshots[i];
    if (!check_snapshot_l1(snapshot, geometry_)) continue;
    PLATTER_CO_TRY(co_await follow(
        {snapshot.l1_table_offset, snapshot.l1_entries,
         snapshot.disk_size != 0 ? snapshot.disk_size : header_.virtual_size(), i}));
  }
  PLATTER_CO_TRY(co_await mark_the_rest(refcount_table));
  if (out_of_memory_) {
    co_return fail(ENOMEM, "The image refers to more than the memory that a map may use can hold");
  }
  co_return result_;
}

}  // namespace

io::Task<Result<block::CheckResult>> chart_image(block::Child& file, Header header,
                                                 block::LayoutVisitor& visitor,
                                                 CheckOptions options) {
  Chart chart(file, header, visitor, options);
  co_return co_await chart.run();
}

}  // namespace platter::format::qcow2
