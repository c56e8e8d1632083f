// qcow2, as far as a policy judges it. Facts are read one by one and kept however damaged the rest
// is; whether the header is sound is what the qcow2 driver's own parser says of it.
// Specification: docs/format/qcow2.md.

#include <algorithm>

#include "base/bytes.h"
#include "base/try.h"
#include "fmt/format.h"
#include "format/qcow2/header.h"
#include "inspect/formats.h"

namespace platter::inspect {

using base::load_big;
namespace qcow2 = format::qcow2;

namespace {

constexpr size_t kRecordHeaderBytes = 8;
constexpr size_t kFeatureRowBytes = 48;
constexpr size_t kFeatureNameBytes = 46;
constexpr uint64_t kSnapshotBytes = 40;  // without extra data, id and name
constexpr uint64_t kBitmapBytes = 24;    // without extra data and name
// As much of a list of snapshots or bitmaps as is read to name its first members.
constexpr uint64_t kListBytes = 128 << 10;

struct FeatureBit {
  unsigned bit;
  std::string_view name;
};
constexpr FeatureBit kIncompatible[] = {{0, "dirty"},
                                        {1, "corrupt"},
                                        {2, "external-data-file"},
                                        {3, "compression-type"},
                                        {4, "extended-l2"}};
constexpr FeatureBit kCompatible[] = {{0, "lazy-refcounts"}};
constexpr FeatureBit kAutoclear[] = {{0, "bitmaps"}, {1, "raw-external-data"}};

struct Fields {
  uint32_t version;
  uint32_t cluster_bits;
  uint64_t backing_offset;
  uint32_t backing_length;
  uint32_t crypt_method;
  uint32_t snapshots;
  uint64_t snapshots_offset;
  uint64_t incompatible = 0;
  uint64_t compatible = 0;
  uint64_t autoclear = 0;
  uint32_t header_length = qcow2::kHeaderBytesV2;
  uint8_t compression = 0;
};

Fields load_fields(std::span<const uint8_t> head) {
  Fields fields = {.version = load_big<uint32_t>(head, 4),
                   .cluster_bits = load_big<uint32_t>(head, 20),
                   .backing_offset = load_big<uint64_t>(head, 8),
                   .backing_length = load_big<uint32_t>(head, 16),
                   .crypt_method = load_big<uint32_t>(head, 32),
                   .snapshots = load_big<uint32_t>(head, 60),
                   .snapshots_offset = load_big<uint64_t>(head, 64)};
  if (fields.version < 3) return fields;
  fields.incompatible = load_big<uint64_t>(head, 72);
  fields.compatible = load_big<uint64_t>(head, 80);
  fields.autoclear = load_big<uint64_t>(head, 88);
  fields.header_length = load_big<uint32_t>(head, 100);
  if (fields.header_length > qcow2::kMinHeaderBytesV3) fields.compression = head[104];
  return fields;
}

// What the extensions say, as far as they can be followed.
struct Extensions {
  std::string backing_format;
  std::string data_file;
  std::span<const uint8_t> feature_names;
  std::span<const uint8_t> bitmaps;
};

Extensions walk_extensions(std::span<const uint8_t> bytes, Report& report) {
  using qcow2::ExtensionType;
  Extensions found;
  while (bytes.size() >= kRecordHeaderBytes) {
    const auto type = ExtensionType{load_big<uint32_t>(bytes, 0)};
    const uint64_t length = load_big<uint32_t>(bytes, 4);
    if (type == ExtensionType::kEnd) break;
    bytes = bytes.subspan(kRecordHeaderBytes);
    const auto data = bytes.first(std::min<uint64_t>(length, bytes.size()));
    if (type == ExtensionType::kBackingFormat) {
      found.backing_format = bounded_text(text_at(data, 0, data.size()));
    } else if (type == ExtensionType::kDataFile) {
      found.data_file = bounded_text(text_at(data, 0, data.size()));
      // Named is enough: a later program may honour the name although the bit is not set.
      report.add_reference(ReferenceKind::kDataFile, found.data_file);
    } else if (type == ExtensionType::kFeatureNames) {
      found.feature_names = data;
    } else if (type == ExtensionType::kBitmaps) {
      found.bitmaps = data;
    }
    if (length > bytes.size()) break;
    bytes = bytes.subspan(std::min<uint64_t>((length + 7) & ~uint64_t{7}, bytes.size()));
  }
  return found;
}

std::string name_of_bit(std::span<const uint8_t> table, uint8_t type, unsigned bit) {
  for (; table.size() >= kFeatureRowBytes; table = table.subspan(kFeatureRowBytes)) {
    if (table[0] != type || table[1] != bit) continue;
    return " '" + bounded_text(text_at(table, 2, kFeatureNameBytes)) + "'";
  }
  return {};
}

void list_features(uint64_t bits, std::span<const FeatureBit> known, uint8_t type,
                   std::span<const uint8_t> names, Report& report) {
  constexpr std::string_view kTypes[] = {"incompatible", "compatible", "autoclear"};
  for (unsigned bit = 0; bit < 64; ++bit) {
    if ((bits >> bit & 1) == 0) continue;
    const auto found = std::ranges::find(known, bit, &FeatureBit::bit);
    if (found != known.end()) {
      report.features.emplace_back(found->name);
    } else if (report.unknown_features.size() < Report::kMaxListed) {
      report.unknown_features.push_back(
          fmt::format("{} bit {}{}", kTypes[type], bit, name_of_bit(names, type, bit)));
    }
  }
}

Result<void> list_snapshots(Source& source, const Fields& fields, Report& report) {
  report.snapshots_total = fields.snapshots;
  if (fields.snapshots == 0) return {};
  PLATTER_ASSIGN(const auto table, source.read(fields.snapshots_offset, kListBytes));
  std::span<const uint8_t> bytes = table;
  const size_t listed = std::min<size_t>(fields.snapshots, Report::kMaxListed);
  while (report.snapshots.size() < listed && bytes.size() >= kSnapshotBytes) {
    const uint64_t id_length = load_big<uint16_t>(bytes, 12);
    const uint64_t name_length = load_big<uint16_t>(bytes, 14);
    const uint64_t name = kSnapshotBytes + load_big<uint32_t>(bytes, 36) + id_length;
    const uint64_t length = (name + name_length + 7) & ~uint64_t{7};
    if (length > bytes.size()) break;
    report.snapshots.push_back(bounded_text(text_at(bytes, name, name_length)));
    bytes = bytes.subspan(length);
  }
  return {};
}

Result<void> list_bitmaps(Source& source, std::span<const uint8_t> extension, Report& report) {
  if (extension.size() < kBitmapBytes) return {};
  report.bitmaps_total = load_big<uint32_t>(extension, 0);
  const uint64_t size = load_big<uint64_t>(extension, 8);
  PLATTER_ASSIGN(const auto directory, source.read(load_big<uint64_t>(extension, 16),
                                                   std::min<uint64_t>(size, kListBytes)));
  std::span<const uint8_t> bytes = directory;
  const size_t listed = std::min<size_t>(report.bitmaps_total, Report::kMaxListed);
  while (report.bitmaps.size() < listed && bytes.size() >= kBitmapBytes) {
    const uint64_t name_length = load_big<uint16_t>(bytes, 18);
    const uint64_t name = kBitmapBytes + load_big<uint32_t>(bytes, 20);
    const uint64_t length = (name + name_length + 7) & ~uint64_t{7};
    if (length > bytes.size()) break;
    report.bitmaps.push_back(bounded_text(text_at(bytes, name, name_length)));
    bytes = bytes.subspan(length);
  }
  return {};
}

void name_backing_file(std::span<const uint8_t> cluster, const Fields& fields,
                       const std::string& backing_format, Report& report) {
  if (fields.backing_offset == 0) return;
  const uint64_t length = std::min<uint64_t>(fields.backing_length, qcow2::kMaxBackingNameBytes);
  std::string name;
  if (fields.backing_offset < cluster.size()) {
    name = bounded_text(text_at(cluster, fields.backing_offset, length));
  }
  report.add_reference(ReferenceKind::kBackingFile, name, backing_format);
}

void name_methods(const Fields& fields, Report& report) {
  switch (fields.compression) {
    case 0: report.compression = "zlib"; break;
    case 1: report.compression = "zstd"; break;
    default: report.compression = fmt::format("type {}", fields.compression);
  }
  switch (fields.crypt_method) {
    case 0: break;
    case 1: report.encryption = "aes"; break;
    case 2: report.encryption = "luks"; break;
    default: report.encryption = fmt::format("method {}", fields.crypt_method);
  }
}

// A table that the header names must lie in the file.
void judge_places(const qcow2::Header& header, Report& report) {
  const auto within = [&](uint64_t offset, uint64_t length, std::string_view what) {
    // An empty one is nowhere; one at the end of the file may be sparse there.
    if (length == 0 || (offset < report.file_size && length <= report.file_size - offset)) return;
    report.add_damage(fmt::format("{} lies outside the file", what));
  };
  within(header.l1_table_offset, header.l1_bytes(), "The L1 table");
  within(header.refcount_table_offset, header.refcount_table_bytes(), "The refcount table");
  within(header.snapshots_offset, header.snapshot_count * kSnapshotBytes, "The snapshot table");
  if (header.bitmaps) {
    within(header.bitmaps->directory_offset, header.bitmaps->directory_size,
           "The bitmap directory");
  }
  if (header.crypto_header) {
    within(header.crypto_header->offset, header.crypto_header->length, "The encryption header");
  }
}

}  // namespace

Result<void> inspect_qcow2(Source& source, const Samples& samples, Report& report) {
  const Fields fields = load_fields(samples.head);
  report.version = fields.version;
  name_methods(fields, report);
  std::vector<uint8_t> cluster = samples.head;
  if (fields.cluster_bits >= qcow2::kMinClusterBits &&
      fields.cluster_bits <= qcow2::kMaxClusterBits) {
    report.cluster_size = uint64_t{1} << fields.cluster_bits;
    PLATTER_ASSIGN(cluster, source.read(0, report.cluster_size));
  }
  std::span<const uint8_t> records = cluster;
  if (fields.backing_offset != 0) {
    records = records.first(std::min<uint64_t>(fields.backing_offset, records.size()));
  }
  records = records.subspan(std::min<uint64_t>(fields.header_length, records.size()));
  const Extensions extensions = walk_extensions(records, report);
  list_features(fields.incompatible, kIncompatible, 0, extensions.feature_names, report);
  list_features(fields.compatible, kCompatible, 1, extensions.feature_names, report);
  list_features(fields.autoclear, kAutoclear, 2, extensions.feature_names, report);
  name_backing_file(cluster, fields, extensions.backing_format, report);
  if ((fields.incompatible & qcow2::kExternalDataFile) != 0 && extensions.data_file.empty()) {
    report.add_reference(ReferenceKind::kDataFile, {});
  }
  const auto header = qcow2::parse_header(cluster, {});
  if (header) {
    report.virtual_size = header->virtual_size();
    judge_places(*header, report);
  } else {
    report.add_damage(header.error().message());
  }
  PLATTER_TRY(list_snapshots(source, fields, report));
  return list_bitmaps(source, extensions.bitmaps, report);
}

}  // namespace platter::inspect
