#include "format/qcow2/extensions.h"

#include <algorithm>
#include <cerrno>
#include <string_view>

#include "base/bytes.h"
#include "base/math.h"
#include "base/try.h"
#include "fmt/format.h"

namespace platter::format::qcow2 {

using base::load_big;
using base::store_big;

namespace {

constexpr size_t kFeatureRowBytes = 48;
constexpr size_t kFeatureNameBytes = 46;
constexpr uint8_t kFeatureIncompatible = 0;
constexpr size_t kCryptoHeaderBytes = 16;
constexpr size_t kBitmapsExtensionBytes = 24;
// Smaller clusters have no room to spare for names.
constexpr uint64_t kMinClusterForFeatureNames = 4096;

struct FeatureName {
  uint8_t type;
  uint8_t bit;
  std::string_view name;
};
constexpr FeatureName kFeatureNames[] = {
    {0, 0, "dirty bit"},        {0, 1, "corrupt bit"},         {0, 2, "external data file"},
    {0, 3, "compression type"}, {0, 4, "extended L2 entries"}, {1, 0, "lazy refcounts"},
    {2, 0, "bitmaps"},          {2, 1, "raw external data"},
};

struct Record {
  uint32_t type;
  std::span<const uint8_t> data;
};

// The record at `offset`, which moves past it. nullopt: the end marker, or no room for another.
Result<std::optional<Record>> next_record(std::span<const uint8_t> bytes, size_t& offset) {
  if (bytes.size() - offset < kExtensionHeaderBytes) return std::nullopt;
  const uint32_t type = load_big<uint32_t>(bytes, offset);
  const uint32_t length = load_big<uint32_t>(bytes, offset + 4);
  if (type == static_cast<uint32_t>(ExtensionType::kEnd)) return std::nullopt;
  offset += kExtensionHeaderBytes;
  if (length > bytes.size() - offset) return fail(EINVAL, "Header extension too large");
  const Record record{type, bytes.subspan(offset, length)};
  offset = std::min<size_t>(base::align_up(offset + length, kRecordAlignment), bytes.size());
  return record;
}

Result<void> parse_crypto_header(std::span<const uint8_t> data, Header& header) {
  if (header.crypt_method != CryptMethod::kLuks) {
    return fail(EINVAL, "CRYPTO header extension only expected with LUKS encryption method");
  }
  if (data.size() != kCryptoHeaderBytes) {
    return fail(EINVAL, fmt::format("CRYPTO header extension size {}, but expected size {}",
                                    data.size(), kCryptoHeaderBytes));
  }
  const CryptoHeaderPointer pointer{load_big<uint64_t>(data, 0), load_big<uint64_t>(data, 8)};
  if (!header.geometry().is_aligned(pointer.offset)) {
    return fail(EINVAL,
                fmt::format("Encryption header offset '{}' is not a multiple of cluster size '{}'",
                            pointer.offset, header.cluster_size()));
  }
  if (!base::range_within(pointer.offset, pointer.length, INT64_MAX)) {
    return fail(EINVAL, fmt::format("Encryption header offset '{}' or length '{}' is out of range",
                                    pointer.offset, pointer.length));
  }
  header.crypto_header = pointer;
  return {};
}

Result<void> parse_bitmaps(std::span<const uint8_t> data, Header& header) {
  if (!header.has(kBitmapsValid)) {
    header.bitmaps_out_of_step = true;
    return {};
  }
  if (data.size() != kBitmapsExtensionBytes) {
    return fail(EINVAL, "bitmaps_ext: Invalid extension length");
  }
  if (load_big<uint32_t>(data, 4) != 0) {
    return fail(EINVAL, "bitmaps_ext: Reserved field is not zero");
  }
  const BitmapsExtension bitmaps{load_big<uint32_t>(data, 0), load_big<uint64_t>(data, 8),
                                 load_big<uint64_t>(data, 16)};
  if (bitmaps.count > kMaxBitmaps) {
    return fail(EINVAL,
                fmt::format("bitmaps_ext: Image has {} bitmaps, exceeding the QEMU supported "
                            "maximum of {}",
                            bitmaps.count, kMaxBitmaps));
  }
  if (bitmaps.count == 0) {
    return fail(EINVAL, "bitmaps_ext: found bitmaps extension with zero bitmaps");
  }
  if (!header.geometry().is_aligned(bitmaps.directory_offset) ||
      bitmaps.directory_offset > kMaxHostOffset) {
    return fail(EINVAL, "bitmaps_ext: invalid bitmap directory offset");
  }
  if (bitmaps.directory_size > kMaxBitmapDirectoryBytes) {
    return fail(EINVAL, fmt::format("bitmaps_ext: bitmap directory size ({}) exceeds the maximum "
                                    "supported size ({})",
                                    bitmaps.directory_size, kMaxBitmapDirectoryBytes));
  }
  header.bitmaps = bitmaps;
  return {};
}

Result<void> parse_record(const Record& record, Header& header) {
  switch (static_cast<ExtensionType>(record.type)) {
    case ExtensionType::kBackingFormat:
      if (record.data.size() > kMaxFormatNameBytes) {
        return fail(EINVAL, fmt::format("ERROR: ext_backing_format: len={} too large (>={})",
                                        record.data.size(), kMaxFormatNameBytes + 1));
      }
      header.backing_format = text_of(record.data);
      return {};
    case ExtensionType::kDataFile: header.data_file = text_of(record.data); return {};
    case ExtensionType::kCryptoHeader: return parse_crypto_header(record.data, header);
    case ExtensionType::kFeatureNames: return {};  // written anew; read by unknown_features()
    case ExtensionType::kBitmaps: return parse_bitmaps(record.data, header);
    case ExtensionType::kEnd: break;
  }
  header.unknown_extensions.push_back({record.type, {record.data.begin(), record.data.end()}});
  return {};
}

void append_record(uint32_t type, std::span<const uint8_t> data, std::vector<uint8_t>& bytes) {
  const size_t start = bytes.size();
  bytes.resize(start + kExtensionHeaderBytes + base::align_up(data.size(), kRecordAlignment));
  store_big(std::span<uint8_t>(bytes), start, type);
  store_big(std::span<uint8_t>(bytes), start + 4, static_cast<uint32_t>(data.size()));
  std::ranges::copy(data, bytes.begin() + static_cast<ptrdiff_t>(start + kExtensionHeaderBytes));
}

void append_record(ExtensionType type, std::span<const uint8_t> data, std::vector<uint8_t>& bytes) {
  append_record(static_cast<uint32_t>(type), data, bytes);
}

std::span<const uint8_t> bytes_of(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

std::vector<uint8_t> feature_rows() {
  std::vector<uint8_t> rows(std::size(kFeatureNames) * kFeatureRowBytes);
  auto row = rows.begin();
  for (const FeatureName& feature : kFeatureNames) {
    row[0] = feature.type;
    row[1] = feature.bit;
    std::ranges::copy(feature.name, row + 2);
    row += kFeatureRowBytes;
  }
  return rows;
}

std::vector<uint8_t> bitmaps_data(const BitmapsExtension& bitmaps) {
  std::vector<uint8_t> data(kBitmapsExtensionBytes);
  const std::span<uint8_t> out(data);
  store_big(out, 0, bitmaps.count);
  store_big(out, 8, bitmaps.directory_size);
  store_big(out, kBitmapDirectoryOffsetField, bitmaps.directory_offset);
  return data;
}

}  // namespace

std::string text_of(std::span<const uint8_t> bytes) {
  return {bytes.begin(), std::ranges::find(bytes, uint8_t{0})};
}

Result<void> parse_extensions(std::span<const uint8_t> bytes, Header& header) {
  for (size_t offset = 0;;) {
    PLATTER_ASSIGN(const auto record, next_record(bytes, offset));
    if (!record) return {};
    PLATTER_TRY(parse_record(*record, header));
  }
}

bool has_feature_names(const Header& header) {
  return header.version >= 3 && header.cluster_size() > kMinClusterForFeatureNames;
}

void append_extensions(const Header& header, std::vector<uint8_t>& bytes, FeatureNames names) {
  if (!header.backing_format.empty()) {
    append_record(ExtensionType::kBackingFormat, bytes_of(header.backing_format), bytes);
  }
  if (!header.data_file.empty()) {
    append_record(ExtensionType::kDataFile, bytes_of(header.data_file), bytes);
  }
  if (header.crypto_header) {
    std::vector<uint8_t> data(kCryptoHeaderBytes);
    store_big(std::span<uint8_t>(data), kCryptoHeaderOffsetField, header.crypto_header->offset);
    store_big(std::span<uint8_t>(data), 8, header.crypto_header->length);
    append_record(ExtensionType::kCryptoHeader, data, bytes);
  }
  if (names == FeatureNames::kIncluded && has_feature_names(header))
    append_record(ExtensionType::kFeatureNames, feature_rows(), bytes);
  for (const UnknownExtension& extension : header.unknown_extensions) {
    append_record(extension.type, extension.data, bytes);
  }
  // Last: what comes and goes moves none of the others.
  if (header.bitmaps) append_record(ExtensionType::kBitmaps, bitmaps_data(*header.bitmaps), bytes);
  append_record(ExtensionType::kEnd, {}, bytes);
}

void append_step(const Header& header, std::vector<uint8_t>& bytes, uint64_t offset) {
  const size_t data = bytes.size() + kExtensionHeaderBytes;
  std::vector<uint8_t> rows;
  if (has_feature_names(header)) rows = feature_rows();
  if (data + rows.size() > kSectorBytes) rows.clear();
  append_record(ExtensionType::kFeatureNames, rows, bytes);
  store_big(std::span<uint8_t>(bytes), data - 4, static_cast<uint32_t>(offset - data));
}

std::vector<ExtensionPlace> extension_places(std::span<const uint8_t> first_cluster) {
  std::vector<ExtensionPlace> places;
  const size_t begin = load_big<uint32_t>(first_cluster, field::kVersion) == 2
                           ? kHeaderBytesV2
                           : load_big<uint32_t>(first_cluster, field::kHeaderLength);
  const uint64_t name = load_big<uint64_t>(first_cluster, field::kBackingNameOffset);
  const size_t end =
      name != 0 ? std::min<uint64_t>(name, first_cluster.size()) : first_cluster.size();
  if (begin > end) return places;
  const auto bytes = first_cluster.subspan(begin, end - begin);
  for (size_t offset = 0;;) {
    const size_t start = offset;
    const auto record = next_record(bytes, offset);
    if (!record) return places;
    if (!*record) {
      const size_t length = std::min(bytes.size() - start, kExtensionHeaderBytes);
      places.push_back({begin + start, length, static_cast<uint32_t>(ExtensionType::kEnd)});
      return places;
    }
    places.push_back({begin + start, offset - start, (*record)->type});
  }
}

std::optional<size_t> find_extension(std::span<const uint8_t> first_cluster, ExtensionType type) {
  std::optional<size_t> found;
  for (const ExtensionPlace& place : extension_places(first_cluster)) {
    if (place.type == static_cast<uint32_t>(type)) found = place.offset;
  }
  return found;
}

Error unknown_features(uint64_t unknown_bits, std::span<const uint8_t> extensions) {
  std::string names;
  auto add = [&names](std::string_view name) {
    if (!names.empty()) names += ", ";
    names += name;
  };
  for (size_t offset = 0;;) {
    const auto record = next_record(extensions, offset);
    if (!record) return std::move(record).error();
    if (!*record) break;
    if ((*record)->type != static_cast<uint32_t>(ExtensionType::kFeatureNames)) continue;
    std::span<const uint8_t> rows = (*record)->data;
    for (; rows.size() >= kFeatureRowBytes; rows = rows.subspan(kFeatureRowBytes)) {
      const uint8_t bit = rows[1];
      const std::string name = text_of(rows.subspan(2, kFeatureNameBytes));
      if (rows[0] != kFeatureIncompatible || bit >= 64 || name.empty()) continue;
      if ((unknown_bits >> bit & 1) == 0) continue;
      add(name);
      unknown_bits &= ~(uint64_t{1} << bit);
    }
  }
  if (unknown_bits != 0) add(fmt::format("Unknown incompatible feature: {:x}", unknown_bits));
  return {ENOTSUP, "Unsupported qcow2 feature(s): " + names};
}

}  // namespace platter::format::qcow2
