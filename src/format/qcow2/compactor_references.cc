// Where an image's file has references to what is to be moved.

#include <algorithm>

#include "base/bytes.h"
#include "base/try.h"
#include "format/qcow2/bitmaps.h"
#include "format/qcow2/compactor.h"
#include "format/qcow2/extensions.h"
#include "format/qcow2/metadata_io.h"

namespace platter::format::qcow2 {
namespace {

constexpr uint64_t kBitmapTablePart = 65536;  // entries that are looked at together

}  // namespace

io::Task<Result<std::vector<Reference>>> Compactor::collect(Level level, Window window) {
  switch (level) {
    case Level::kData: return collect_data(window);
    case Level::kL2Tables: return collect_l2_tables(window);
    case Level::kUpperTables: return collect_upper_tables(window);
    case Level::kRoots: return collect_roots(window);
  }
  return collect_roots(window);
}

io::Task<Result<Compactor::Tables>> Compactor::list_tables() {
  PLATTER_CO_ASSIGN(const auto snapshots,
                    co_await read_snapshot_table(*image_.file, image_.header));
  std::vector<std::pair<uint64_t, uint64_t>> l1_tables;
  l1_tables.emplace_back(image_.header.l1_table_offset, image_.header.l1_entries);
  for (const Snapshot& snapshot : snapshots.snapshots)
    l1_tables.emplace_back(snapshot.l1_table_offset, snapshot.l1_entries);
  std::erase_if(l1_tables, [](const auto& table) { return table.second == 0; });
  // Of tables at one place the longest has them all.
  std::ranges::sort(l1_tables, [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first < b.first : a.second > b.second;
  });
  const auto rest =
      std::ranges::unique(l1_tables, {}, [](const auto& table) { return table.first; });
  l1_tables.erase(rest.begin(), rest.end());
  Tables tables;
  for (const auto& [offset, entries] : l1_tables) {
    tables.l1_offsets.push_back(offset);
    tables.l1_entries.push_back(entries);
    io::AlignedBuffer l1(entries * kTableEntryBytes);
    PLATTER_CO_TRY(co_await read_padded(*image_.file, offset, l1.view()));
    for (uint64_t i = 0; i < entries; ++i) {
      const uint64_t entry = base::load_big<uint64_t>(l1.span(), i * kTableEntryBytes);
      if ((entry & kOffsetMask) != 0) tables.l2_offsets.push_back(entry & kOffsetMask);
    }
  }
  std::ranges::sort(tables.l2_offsets);
  const auto again = std::ranges::unique(tables.l2_offsets);
  tables.l2_offsets.erase(again.begin(), again.end());
  co_return tables;
}

io::Task<Result<void>> Compactor::for_each_l2(
    std::span<const uint64_t> offsets,
    std::function<void(uint64_t, std::span<const uint8_t>)> visit) {
  TableReader reader(*image_.file, offsets, geometry_.cluster_size());
  for (;;) {
    const TableReader::Batch batch = co_await reader.next();
    if (batch.count == 0) co_return Result<void>{};
    for (size_t i = batch.first; i < batch.first + batch.count; ++i) {
      const auto table = reader.table(i);
      if (!table) co_return std::unexpected(table.error());
      visit(offsets[i], *table);
    }
  }
}

io::Task<Result<void>> Compactor::find_ties() {
  PLATTER_CO_ASSIGN(const Tables tables, co_await list_tables());
  const uint64_t stride = geometry_.l2_entry_bytes();
  co_return co_await for_each_l2(tables.l2_offsets, [&](uint64_t, std::span<const uint8_t> table) {
    for (uint64_t at = 0; at < table.size(); at += stride) {
      const uint64_t entry = base::load_big<uint64_t>(table, at);
      if ((entry & kCompressedFlag) == 0) continue;
      const CompressedSpan span = decode_compressed(entry, geometry_.cluster_bits);
      const uint64_t first = span.host_offset >> geometry_.cluster_bits;
      const uint64_t last = (span.host_offset + span.length - 1) >> geometry_.cluster_bits;
      if (tied_.size() < last) tied_.resize(last);
      for (uint64_t cluster = first; cluster < last; ++cluster) tied_[cluster] = true;
    }
  });
}

// If it names anything that begins there.
void Compactor::add_if_within(Window window, Reference reference,
                              std::vector<Reference>& references) const {
  if (reference.offset == 0 || reference.bytes == 0 ||
      !window.contains(reference.offset >> geometry_.cluster_bits)) {
    return;
  }
  reference.weight = weight_of(reference.place);
  references.push_back(reference);
}

io::Task<Result<std::vector<Reference>>> Compactor::collect_data(Window window) {
  std::vector<Reference> references;
  if (!geometry_.external_data) PLATTER_CO_TRY(co_await collect_guest_data(window, references));
  PLATTER_CO_TRY(co_await collect_bitmap_bits(window, references));
  co_return references;
}

io::Task<Result<void>> Compactor::collect_guest_data(Window window,
                                                     std::vector<Reference>& references) {
  PLATTER_CO_ASSIGN(const Tables tables, co_await list_tables());
  const uint64_t stride = geometry_.l2_entry_bytes();
  co_return co_await for_each_l2(
      tables.l2_offsets, [&](uint64_t offset, std::span<const uint8_t> table) {
        for (uint64_t at = 0; at < table.size(); at += stride) {
          const uint64_t entry = base::load_big<uint64_t>(table, at);
          if ((entry & kCompressedFlag) != 0) {
            const CompressedSpan span = decode_compressed(entry, geometry_.cluster_bits);
            add_if_within(window, {offset + at, entry, span.host_offset, span.length}, references);
          } else {
            add_if_within(window,
                          {offset + at, entry, entry & kOffsetMask, geometry_.cluster_size(),
                           Content::kGuestData},
                          references);
          }
        }
      });
}

io::Task<Result<void>> Compactor::collect_bitmap_bits(Window window,
                                                      std::vector<Reference>& references) {
  block::Child& file = *image_.file;
  PLATTER_CO_ASSIGN(const auto bitmaps, co_await read_bitmap_directory(file, image_.header));
  for (const Bitmap& bitmap : bitmaps) {
    // A table that the file does not have whole is nobody's to read.
    if (!base::range_within(bitmap.table_offset, bitmap.table_bytes(), file.size())) continue;
    for (uint64_t first = 0; first < bitmap.table_entries; first += kBitmapTablePart) {
      const uint64_t count = std::min(kBitmapTablePart, bitmap.table_entries - first);
      PLATTER_CO_ASSIGN(const auto part,
                        co_await read_bitmap_table_part(file, bitmap, first, count));
      uint64_t place = bitmap.table_offset + first * kTableEntryBytes;
      for (const uint64_t entry : part) {
        add_if_within(window, {place, entry, entry & kOffsetMask, geometry_.cluster_size()},
                      references);
        place += kTableEntryBytes;
      }
    }
  }
  co_return Result<void>{};
}

io::Task<Result<std::vector<Reference>>> Compactor::collect_l2_tables(Window window) {
  PLATTER_CO_ASSIGN(const Tables tables, co_await list_tables());
  std::vector<Reference> references;
  for (size_t i = 0; i < tables.l1_offsets.size(); ++i) {
    io::AlignedBuffer l1(tables.l1_entries[i] * kTableEntryBytes);
    PLATTER_CO_TRY(co_await read_padded(*image_.file, tables.l1_offsets[i], l1.view()));
    for (uint64_t at = 0; at < l1.size(); at += kTableEntryBytes) {
      const uint64_t entry = base::load_big<uint64_t>(l1.span(), at);
      add_if_within(
          window, {tables.l1_offsets[i] + at, entry, entry & kOffsetMask, geometry_.cluster_size()},
          references);
    }
  }
  co_return references;
}

io::Task<Result<std::vector<Reference>>> Compactor::collect_upper_tables(Window window) {
  const Header& header = image_.header;
  std::vector<Reference> references;
  const auto add_l1 = [&](uint64_t place, uint64_t offset, uint64_t entries) {
    add_if_within(window, {place, offset, offset, entries * kTableEntryBytes}, references);
  };
  add_l1(field::kL1TableOffset, header.l1_table_offset, header.l1_entries);
  PLATTER_CO_ASSIGN(const auto snapshots, co_await read_snapshot_table(*image_.file, header));
  for (const Snapshot& snapshot : snapshots.snapshots) {
    add_l1(header.snapshots_offset + snapshot.table_position, snapshot.l1_table_offset,
           snapshot.l1_entries);
  }
  uint64_t place = header.refcount_table_offset;
  for (const uint64_t block : relocator_.table()) {
    add_if_within(window, {place, block, block, geometry_.cluster_size()}, references);
    place += kTableEntryBytes;
  }
  PLATTER_CO_TRY(co_await collect_bitmap_tables(window, references));
  co_return references;
}

io::Task<Result<void>> Compactor::collect_bitmap_tables(Window window,
                                                        std::vector<Reference>& references) {
  PLATTER_CO_ASSIGN(const auto bitmaps,
                    co_await read_bitmap_directory(*image_.file, image_.header));
  uint64_t place = bitmaps.empty() ? 0 : image_.header.bitmaps->directory_offset;
  for (const Bitmap& bitmap : bitmaps) {
    add_if_within(window, {place, bitmap.table_offset, bitmap.table_offset, bitmap.table_bytes()},
                  references);
    place += bitmap_record_bytes(bitmap);
  }
  co_return Result<void>{};
}

io::Task<Result<std::vector<Reference>>> Compactor::collect_roots(Window window) {
  const Header& header = image_.header;
  std::vector<Reference> references;
  const auto add = [&](uint64_t place, uint64_t offset, uint64_t bytes) {
    add_if_within(window, {place, offset, offset, bytes}, references);
  };
  PLATTER_CO_ASSIGN(const auto snapshots, co_await read_snapshot_table(*image_.file, header));
  add(field::kSnapshotsOffset, header.snapshots_offset, snapshots.bytes);
  add(field::kRefcountTableOffset, header.refcount_table_offset, header.refcount_table_bytes());
  if (!header.bitmaps && !header.crypto_header) co_return references;
  std::vector<uint8_t> first_cluster(geometry_.cluster_size());
  PLATTER_CO_TRY(co_await read_padded(*image_.file, 0, io::BufferList(std::span(first_cluster))));
  const auto add_extension = [&](ExtensionType type, size_t in_data, uint64_t offset,
                                 uint64_t bytes) {
    const auto record = find_extension(first_cluster, type);
    if (!record) return;
    const uint64_t place = *record + kExtensionHeaderBytes + in_data;
    // A header of an odd length has fields that a power cut may leave half written.
    if (place % kSectorBytes <= kSectorBytes - kTableEntryBytes) add(place, offset, bytes);
  };
  if (header.bitmaps) {
    add_extension(ExtensionType::kBitmaps, kBitmapDirectoryOffsetField,
                  header.bitmaps->directory_offset, header.bitmaps->directory_size);
  }
  if (header.crypto_header) {
    add_extension(ExtensionType::kCryptoHeader, kCryptoHeaderOffsetField,
                  header.crypto_header->offset, header.crypto_header->length);
  }
  co_return references;
}

// As many as one batch takes of those that end behind the end, the last ones in the file. None, if
// it is something else that keeps the file from being cut.
io::Task<Result<std::vector<Reference>>> Compactor::collect_last_streams() {
  const uint64_t file_end = relocator_.end_of_used();
  uint64_t from = file_end;
  for (uint64_t count = 0; from > end_ && count < kMaxReferences;)
    count += relocator_.count(--from);
  std::vector<Reference> references;
  if (from == file_end) co_return references;
  bool is_last = false;
  PLATTER_CO_ASSIGN(const Tables tables, co_await list_tables());
  const uint64_t stride = geometry_.l2_entry_bytes();
  PLATTER_CO_TRY(
      co_await for_each_l2(tables.l2_offsets, [&](uint64_t offset, std::span<const uint8_t> table) {
        for (uint64_t at = 0; at < table.size(); at += stride) {
          const uint64_t entry = base::load_big<uint64_t>(table, at);
          if ((entry & kCompressedFlag) == 0) continue;
          const CompressedSpan span = decode_compressed(entry, geometry_.cluster_bits);
          const uint64_t last = (span.host_offset + span.length - 1) >> geometry_.cluster_bits;
          if (last < from) continue;
          references.push_back({offset + at, entry, span.host_offset, span.length, Content::kPlain,
                                weight_of(offset)});
          is_last = is_last || last + 1 == file_end;
        }
      }));
  if (!is_last) references.clear();
  co_return references;
}

}  // namespace platter::format::qcow2
