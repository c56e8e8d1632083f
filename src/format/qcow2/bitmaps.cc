#include "format/qcow2/bitmaps.h"

#include <algorithm>
#include <cerrno>

#include "base/bytes.h"
#include "base/try.h"
#include "fmt/format.h"
#include "format/qcow2/extensions.h"
#include "format/qcow2/metadata_io.h"

namespace platter::format::qcow2 {

using base::load_big;

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
    if (bytes[16] != kDirtyTrackingType || extra_length != 0) {
      return fail(ENOTSUP, fmt::format("Bitmap '{}' is of an unknown type", bitmap.name));
    }
    PLATTER_TRY(check_entry(bitmap, header));
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

}  // namespace platter::format::qcow2
