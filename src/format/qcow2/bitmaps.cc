#include "format/qcow2/bitmaps.h"

#include <algorithm>
#include <cerrno>
#include <unordered_set>

#include "base/bytes.h"
#include "base/try.h"
#include "block/dirty_bitmap.h"
#include "fmt/format.h"
#include "format/qcow2/extensions.h"
#include "format/qcow2/metadata_io.h"

namespace platter::format::qcow2 {

using base::load_big;
using base::store_big;

namespace {

constexpr size_t kEntryBytes = 24;  // without extra data and name
constexpr uint8_t kDirtyTrackingType = 1;
constexpr unsigned kMinGranularityBits = 9;
constexpr unsigned kMaxGranularityBits = 31;

std::unexpected<Error> broken() { return fail(EINVAL, "Broken bitmap directory"); }

Result<void> check_entry(const Bitmap& bitmap, const Header& header) {
  const auto refuse = [&](std::string_view why) {
    return fail(EINVAL,
                fmt::format("Bitmap '{}' doesn't satisfy the constraints: {}", bitmap.name, why));
  };
  if (bitmap.table_entries == 0 || bitmap.table_entries > kMaxBitmapTableEntries) {
    return refuse("its table has no entries or too many");
  }
  if (bitmap.table_offset == 0 || bitmap.table_offset > kMaxHostOffset ||
      !header.geometry().is_aligned(bitmap.table_offset)) {
    return refuse("its table's offset is invalid");
  }
  if (bitmap.granularity_bits < kMinGranularityBits ||
      bitmap.granularity_bits > kMaxGranularityBits) {
    return refuse("its granularity is out of range");
  }
  if (bitmap.flags & ~(kBitmapInUse | kBitmapAuto | kBitmapExtraDataCompatible)) {
    return refuse("it has unknown flags");
  }
  return {};
}

}  // namespace

Result<std::vector<Bitmap>> parse_bitmap_directory(std::span<const uint8_t> bytes,
                                                   const Header& header) {
  std::vector<Bitmap> bitmaps;
  std::unordered_set<std::string> names;
  while (!bytes.empty()) {
    if (bytes.size() < kEntryBytes) return broken();
    if (bitmaps.size() == header.bitmaps->count) {
      return fail(EINVAL, "More bitmaps found than specified in header extension");
    }
    const uint64_t name_length = load_big<uint16_t>(bytes, 18);
    const uint64_t extra_length = load_big<uint32_t>(bytes, 20);
    const uint64_t length = base::align_up(kEntryBytes + extra_length + name_length, 8);
    if (length > bytes.size() || name_length == 0 || name_length > kMaxBitmapNameBytes) {
      return broken();
    }
    Bitmap bitmap;
    bitmap.table_offset = load_big<uint64_t>(bytes, 0);
    bitmap.table_entries = load_big<uint32_t>(bytes, 8);
    bitmap.flags = load_big<uint32_t>(bytes, 12);
    bitmap.granularity_bits = bytes[17];
    bitmap.name = text_of(bytes.subspan(kEntryBytes + extra_length, name_length));
    if (bitmap.name.size() != name_length)
      return fail(EINVAL, fmt::format("The name of bitmap '{}' has a zero byte", bitmap.name));
    if (bytes[16] != kDirtyTrackingType || extra_length != 0) {
      return fail(ENOTSUP, fmt::format("Bitmap '{}' is of an unknown type", bitmap.name));
    }
    PLATTER_TRY(check_entry(bitmap, header));
    if (!names.insert(bitmap.name).second)
      return fail(EINVAL, fmt::format("There is more than one bitmap '{}'", bitmap.name));
    bitmaps.push_back(std::move(bitmap));
    bytes = bytes.subspan(length);
  }
  if (bitmaps.size() != header.bitmaps->count) {
    return fail(EINVAL, "Less bitmaps found than specified in header extension");
  }
  return bitmaps;
}

io::Task<Result<std::vector<Bitmap>>> read_bitmap_directory(block::Child& file,
                                                            const Header& header) {
  if (!header.bitmaps) co_return std::vector<Bitmap>{};
  // A buffer of no bytes is none.
  io::AlignedBuffer directory(std::max<uint64_t>(header.bitmaps->directory_size, 1));
  PLATTER_CO_TRY(co_await read_padded(file, header.bitmaps->directory_offset,
                                      directory.view(0, header.bitmaps->directory_size)));
  co_return parse_bitmap_directory(directory.span().first(header.bitmaps->directory_size), header);
}

uint64_t bitmap_record_bytes(const Bitmap& bitmap) {
  return base::align_up(kEntryBytes + bitmap.name.size(), 8);
}

std::vector<uint8_t> serialise_bitmap_directory(std::span<const Bitmap> bitmaps) {
  std::vector<uint8_t> bytes;
  for (const Bitmap& bitmap : bitmaps) {
    const size_t start = bytes.size();
    bytes.resize(start + bitmap_record_bytes(bitmap));
    const std::span<uint8_t> record = std::span(bytes).subspan(start);
    store_big<uint64_t>(record, 0, bitmap.table_offset);
    store_big<uint32_t>(record, 8, bitmap.table_entries);
    store_big<uint32_t>(record, 12, bitmap.flags);
    record[16] = kDirtyTrackingType;
    record[17] = bitmap.granularity_bits;
    store_big<uint16_t>(record, 18, static_cast<uint16_t>(bitmap.name.size()));
    std::ranges::copy(bitmap.name, record.begin() + kEntryBytes);
  }
  return bytes;
}

// ---- Tables and bits

bool bitmap_entry_is_valid(uint64_t entry, const Geometry& geometry, uint64_t file_size) {
  const uint64_t offset = entry & kOffsetMask;
  if ((entry & kBitmapReservedMask) != 0) return false;
  if (offset == 0) return true;
  return (entry & kBitmapAllOnes) == 0 && geometry.is_aligned(offset) &&
         base::range_within(offset, geometry.cluster_size(), file_size);
}

uint64_t bitmap_clusters(uint64_t disk_size, uint64_t granularity, const Geometry& geometry) {
  const uint64_t bits = base::divide_round_up(disk_size, granularity);
  return geometry.clusters_for(base::divide_round_up(bits, 8));
}

io::Task<Result<std::vector<uint64_t>>> read_bitmap_table_part(block::Child& file,
                                                               const Bitmap& bitmap, uint64_t first,
                                                               uint64_t count) {
  if (!base::range_within(bitmap.table_offset, bitmap.table_bytes(), file.size()))
    co_return fail(EINVAL, fmt::format("The table of bitmap '{}' is not in the file", bitmap.name));
  std::vector<uint64_t> entries(count);
  if (count == 0) co_return entries;
  io::AlignedBuffer bytes(count * kTableEntryBytes);
  PLATTER_CO_TRY(co_await file.read(bitmap.table_offset + first * kTableEntryBytes, bytes.view()));
  for (uint64_t i = 0; i < count; ++i)
    entries[i] = load_big<uint64_t>(bytes.span(), i * kTableEntryBytes);
  co_return entries;
}

io::Task<Result<std::vector<uint64_t>>> read_bitmap_table(block::Child& file,
                                                          const Geometry& geometry,
                                                          const Bitmap& bitmap,
                                                          uint64_t disk_size) {
  const uint64_t wanted = bitmap_clusters(disk_size, bitmap.granularity(), geometry);
  if (bitmap.table_entries != wanted) {
    co_return fail(EINVAL, fmt::format("The table of bitmap '{}' has {} entries, not {}",
                                       bitmap.name, bitmap.table_entries, wanted));
  }
  PLATTER_CO_ASSIGN(auto table, co_await read_bitmap_table_part(file, bitmap, 0, wanted));
  for (const uint64_t entry : table) {
    if (bitmap_entry_is_valid(entry, geometry, file.size())) continue;
    co_return fail(EINVAL,
                   fmt::format("Bitmap '{}' has an invalid table entry: {:x}", bitmap.name, entry));
  }
  co_return table;
}

io::Task<Result<void>> read_bitmap_bits(block::Child& file, const Geometry& geometry,
                                        std::span<const uint64_t> table, block::DirtyBitmap& bits) {
  block::BitTree& tree = bits.tree();
  const uint64_t per_cluster = geometry.cluster_size() * 8;
  std::vector<uint64_t> offsets;
  std::vector<uint64_t> first_bits;
  for (uint64_t i = 0; i < table.size(); ++i) {
    const uint64_t first = i * per_cluster;
    if (table[i] == kBitmapAllOnes) {
      tree.set(first, std::min(per_cluster, tree.size() - first));
    } else if (table[i] != 0) {
      offsets.push_back(table[i]);
      first_bits.push_back(first);
    }
  }
  TableReader reader(file, offsets, geometry.cluster_size());
  for (;;) {
    const TableReader::Batch batch = co_await reader.next();
    if (batch.count == 0) co_return Result<void>{};
    for (size_t i = batch.first; i < batch.first + batch.count; ++i) {
      PLATTER_CO_ASSIGN(const auto bytes, reader.table(i));
      tree.load(first_bits[i], bytes);
    }
  }
}

}  // namespace platter::format::qcow2
