#include "format/qcow2/header.h"

#include <algorithm>
#include <cerrno>
#include <string_view>

#include "base/bytes.h"
#include "base/math.h"
#include "base/try.h"
#include "fmt/format.h"
#include "format/qcow2/extensions.h"

namespace platter::format::qcow2 {

using base::load_big;
using base::store_big;

namespace {

constexpr uint64_t kMaxFileOffset = INT64_MAX;
constexpr unsigned kSubclustersPerCluster = 32;
constexpr unsigned kMinExtendedL2ClusterBits = 14;

// A table of the image as the header describes it: where, and how large at most.
struct TableClaim {
  uint64_t offset;
  uint64_t entries;
  uint64_t entry_bytes;
  uint64_t max_bytes;
  std::string_view name;
};

Result<void> check_table(const TableClaim& table, const Geometry& geometry) {
  if (table.entries > table.max_bytes / table.entry_bytes) {
    return fail(EFBIG, fmt::format("{} too large", table.name));
  }
  const uint64_t bytes = table.entries * table.entry_bytes;
  if (!base::range_within(table.offset, bytes, kMaxFileOffset) ||
      !geometry.is_aligned(table.offset)) {
    return fail(EINVAL, fmt::format("{} offset invalid", table.name));
  }
  return {};
}

// Version, cluster size and lengths: what everything else is measured by.
Result<uint32_t> parse_frame(std::span<const uint8_t> bytes, Header& header) {
  if (bytes.size() < kMinHeaderBytesV3 || load_big<uint32_t>(bytes, 0) != kMagic) {
    return fail(EINVAL, "Image is not in qcow2 format");
  }
  header.version = load_big<uint32_t>(bytes, 4);
  if (header.version < 2 || header.version > 3) {
    return fail(ENOTSUP, fmt::format("Unsupported qcow2 version {}", header.version));
  }
  header.cluster_bits = load_big<uint32_t>(bytes, 20);
  if (header.cluster_bits < kMinClusterBits || header.cluster_bits > kMaxClusterBits) {
    return fail(EINVAL, fmt::format("Unsupported cluster size: 2^{}", header.cluster_bits));
  }
  if (header.version == 2) return kHeaderBytesV2;

  const uint32_t header_length = load_big<uint32_t>(bytes, 100);
  if (header_length < kMinHeaderBytesV3) return fail(EINVAL, "qcow2 header too short");
  if (header_length > header.cluster_size()) {
    return fail(EINVAL, "qcow2 header exceeds cluster size");
  }
  return header_length;
}

void load_fields(std::span<const uint8_t> bytes, uint32_t header_length, Header& header) {
  header.size = load_big<uint64_t>(bytes, field::kSize);
  header.l1_entries = load_big<uint32_t>(bytes, field::kL1Entries);
  header.l1_table_offset = load_big<uint64_t>(bytes, field::kL1TableOffset);
  header.refcount_table_offset = load_big<uint64_t>(bytes, field::kRefcountTableOffset);
  header.refcount_table_clusters = load_big<uint32_t>(bytes, field::kRefcountTableClusters);
  header.snapshot_count = load_big<uint32_t>(bytes, 60);
  header.snapshots_offset = load_big<uint64_t>(bytes, 64);
  if (header.version == 2) return;
  header.incompatible = load_big<uint64_t>(bytes, field::kIncompatible);
  header.compatible = load_big<uint64_t>(bytes, field::kCompatible);
  header.autoclear = load_big<uint64_t>(bytes, field::kAutoclear);
  if (header_length > kHeaderBytesV3) {
    auto rest = bytes.subspan(kHeaderBytesV3, header_length - kHeaderBytesV3);
    header.unknown_fields.assign(rest.begin(), rest.end());
  }
}

Result<void> check_compression_type(uint8_t type, Header& header) {
  if (type > static_cast<uint8_t>(CompressionType::kZstd)) {
    return fail(ENOTSUP, fmt::format("qcow2: unknown compression type: {}", type));
  }
  header.compression_type = CompressionType{type};
  const bool bit = header.has(kCompressionTypeBit);
  if (type == 0 && bit) {
    return fail(EINVAL, "qcow2: Compression type incompatible feature bit must not be set");
  }
  if (type != 0 && !bit) {
    return fail(EINVAL, "qcow2: Compression type incompatible feature bit must be set");
  }
  return {};
}

Result<void> parse_version3_fields(std::span<const uint8_t> bytes, uint32_t header_length,
                                   Header& header) {
  PLATTER_TRY(check_compression_type(
      header_length > kMinHeaderBytesV3 ? bytes[kMinHeaderBytesV3] : 0, header));
  if (header.has(kExtendedL2) && header.cluster_bits < kMinExtendedL2ClusterBits) {
    return fail(EINVAL, fmt::format("Unsupported subcluster size: {}",
                                    header.cluster_size() / kSubclustersPerCluster));
  }
  header.refcount_order = load_big<uint32_t>(bytes, 96);
  if (header.refcount_order > kMaxRefcountOrder) {
    return fail(EINVAL, "Reference count entry width too large; may not exceed 64 bits");
  }
  return {};
}

Result<void> check_tables(const Header& header, const ParseOptions& options) {
  const Geometry geometry = header.geometry();
  PLATTER_TRY(check_table({header.refcount_table_offset, header.refcount_table_clusters,
                           header.cluster_size(), kMaxRefcountTableBytes, "Reference count table"},
                          geometry));
  if (header.refcount_table_clusters == 0 && !options.tolerate_damage) {
    return fail(EINVAL, "Image does not contain a reference count table");
  }
  if (!options.tolerate_damage) {
    if (header.snapshot_count > kMaxSnapshots) return fail(EFBIG, "Snapshot table too large");
    PLATTER_TRY(check_table({header.snapshots_offset, header.snapshot_count, kSnapshotEntryBytes,
                             kMaxSnapshotTableBytes, "Snapshot table"},
                            geometry));
  }
  PLATTER_TRY(check_table({header.l1_table_offset, header.l1_entries, kTableEntryBytes,
                           kMaxL1TableBytes, "Active L1 table"},
                          geometry));
  const uint64_t needed = geometry.l1_entries_for(header.virtual_size());
  if (needed > INT32_MAX || header.size > kMaxFileOffset) return fail(EFBIG, "Image is too big");
  if (header.l1_entries < needed) return fail(EINVAL, "L1 table is too small");
  if (header.l1_bytes() + header.refcount_table_bytes() > options.max_metadata_bytes) {
    return fail(
        EFBIG,
        fmt::format("The image's tables need {} bytes of memory, more than the {} allowed",
                    header.l1_bytes() + header.refcount_table_bytes(), options.max_metadata_bytes));
  }
  return {};
}

Result<void> parse_backing_name(std::span<const uint8_t> bytes, uint64_t offset, Header& header) {
  if (offset == 0) return {};
  const uint32_t length = load_big<uint32_t>(bytes, 16);
  if (length > std::min<uint64_t>(kMaxBackingNameBytes, header.cluster_size() - offset)) {
    return fail(EINVAL, "Backing file name too long");
  }
  header.backing_file = text_of(bytes.subspan(offset, length));
  return {};
}

}  // namespace

Result<Header> parse_header(std::span<const uint8_t> bytes, const ParseOptions& options) {
  Header header;
  PLATTER_ASSIGN(const uint32_t header_length, parse_frame(bytes, header));
  if (bytes.size() < header.cluster_size()) {
    return fail(EINVAL, "The first cluster of the image is incomplete");
  }
  bytes = bytes.first(header.cluster_size());
  load_fields(bytes, header_length, header);

  const uint64_t backing_offset = load_big<uint64_t>(bytes, 8);
  if (backing_offset > header.cluster_size()) return fail(EINVAL, "Invalid backing file offset");
  const uint64_t extensions_end = backing_offset ? backing_offset : header.cluster_size();
  std::span<const uint8_t> extensions;
  if (header_length < extensions_end) {
    extensions = bytes.subspan(header_length, extensions_end - header_length);
  }

  if (const uint64_t unknown = header.incompatible & ~kKnownIncompatible) {
    return std::unexpected(unknown_features(unknown, extensions));
  }
  if (header.version == 3) PLATTER_TRY(parse_version3_fields(bytes, header_length, header));
  const uint32_t crypt_method = load_big<uint32_t>(bytes, 32);
  if (crypt_method > static_cast<uint32_t>(CryptMethod::kLuks)) {
    return fail(EINVAL, fmt::format("Unsupported encryption method {}", crypt_method));
  }
  header.crypt_method = CryptMethod{crypt_method};
  PLATTER_TRY(check_tables(header, options));
  PLATTER_TRY(parse_extensions(extensions, header));
  PLATTER_TRY(parse_backing_name(bytes, backing_offset, header));
  return header;
}

Result<uint64_t> declared_cluster_size(std::span<const uint8_t> bytes) {
  Header frame;
  PLATTER_TRY(parse_frame(bytes, frame));
  return frame.cluster_size();
}

Result<void> check_supported(const Header& header) {
  if (header.has(kRawExternalData) && !header.has(kExternalDataFile))
    return fail(EINVAL, "data-file-raw requires a data file");
  return {};
}

std::vector<uint8_t> serialise_fields(const Header& header) {
  const bool version3 = header.version >= 3;
  const size_t header_length =
      version3 ? kHeaderBytesV3 + header.unknown_fields.size() : kHeaderBytesV2;
  std::vector<uint8_t> bytes(header_length);
  std::span<uint8_t> out(bytes);
  store_big(out, 0, kMagic);
  store_big(out, 4, header.version);
  store_big(out, 20, header.cluster_bits);
  store_big(out, field::kSize, header.size);
  store_big(out, 32, static_cast<uint32_t>(header.crypt_method));
  store_big(out, field::kL1Entries, header.l1_entries);
  store_big(out, field::kL1TableOffset, header.l1_table_offset);
  store_big(out, field::kRefcountTableOffset, header.refcount_table_offset);
  store_big(out, field::kRefcountTableClusters, header.refcount_table_clusters);
  store_big(out, 60, header.snapshot_count);
  store_big(out, 64, header.snapshots_offset);
  if (version3) {
    store_big(out, field::kIncompatible, header.incompatible);
    store_big(out, field::kCompatible, header.compatible);
    store_big(out, field::kAutoclear, header.autoclear);
    store_big(out, 96, header.refcount_order);
    store_big(out, 100, static_cast<uint32_t>(header_length));
    bytes[kMinHeaderBytesV3] = static_cast<uint8_t>(header.compression_type);
    std::ranges::copy(header.unknown_fields, bytes.begin() + kHeaderBytesV3);
  }
  return bytes;
}

void place_backing_name(const Header& header, uint64_t offset, std::span<uint8_t> fields) {
  store_big(fields, field::kBackingNameOffset, offset);
  store_big(fields, field::kBackingNameBytes, static_cast<uint32_t>(header.backing_file.size()));
}

Result<std::vector<uint8_t>> serialise_header(const Header& header) {
  std::vector<uint8_t> bytes = serialise_fields(header);
  append_extensions(header, bytes);
  if (!header.backing_file.empty()) {
    place_backing_name(header, bytes.size(), bytes);
    bytes.insert(bytes.end(), header.backing_file.begin(), header.backing_file.end());
  }
  if (header.backing_file.size() > kMaxBackingNameBytes) {
    return fail(EINVAL, "Backing file name too long");
  }
  if (bytes.size() > header.cluster_size()) {
    return fail(ENOSPC,
                "The header, its extensions and the backing file name do not fit in one cluster");
  }
  return bytes;
}

int probe_header(std::span<const uint8_t> head) {
  if (head.size() < kHeaderBytesV2 || load_big<uint32_t>(head, 0) != kMagic) return 0;
  return load_big<uint32_t>(head, 4) >= 2 ? 100 : 0;
}

}  // namespace platter::format::qcow2
