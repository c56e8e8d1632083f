// qcow (version 1) and QED: QEMU's former formats. Both may name a backing file.

#include <algorithm>

#include "base/bytes.h"
#include "base/math.h"
#include "base/try.h"
#include "fmt/format.h"
#include "inspect/formats.h"

namespace platter::inspect {

using base::load_big;
using base::load_little;

namespace {

constexpr uint64_t kMaxNameBytes = 1023;
constexpr uint64_t kMinQedCluster = 4096;
constexpr uint64_t kMaxQedCluster = uint64_t{64} << 20;
constexpr uint64_t kMaxQedTableClusters = 16;
constexpr uint64_t kQedTableEntryBytes = 8;

Result<void> name_backing_file(Source& source, uint64_t offset, uint64_t length,
                               std::string_view reference_format, Report& report) {
  if (length > kMaxNameBytes) {
    report.add_damage("Backing file name too long");
    length = kMaxNameBytes;
  }
  PLATTER_ASSIGN(const auto name, source.read(offset, length));
  report.add_reference(ReferenceKind::kBackingFile, bounded_text(text_at(name, 0, name.size())),
                       std::string(reference_format));
  return {};
}

}  // namespace

Result<void> inspect_qcow(Source& source, const Samples& samples, Report& report) {
  const auto& head = samples.head;
  report.version = 1;
  const uint64_t backing_offset = load_big<uint64_t>(head, 8);
  const uint64_t size = load_big<uint64_t>(head, 24);
  const unsigned cluster_bits = head[32];
  const unsigned l2_bits = head[33];
  const uint32_t crypt_method = load_big<uint32_t>(head, 36);
  if (size > INT64_MAX) {
    report.add_damage("Image is too big");
  } else {
    report.virtual_size = size;
  }
  if (cluster_bits < 9 || cluster_bits > 16) {
    report.add_damage(fmt::format("Unsupported cluster size: 2^{}", cluster_bits));
  } else {
    report.cluster_size = uint64_t{1} << cluster_bits;
  }
  if (l2_bits < 6 || l2_bits > 13) {
    report.add_damage(fmt::format("Unsupported L2 table size: 2^{} entries", l2_bits));
  }
  if (load_big<uint64_t>(head, 40) >= report.file_size) {
    report.add_damage("The L1 table lies outside the file");
  }
  report.compression = "zlib";
  if (crypt_method == 1) report.encryption = "aes";
  if (crypt_method > 1) report.encryption = fmt::format("method {}", crypt_method);
  if (backing_offset == 0) return {};
  return name_backing_file(source, backing_offset, load_big<uint32_t>(head, 16), {}, report);
}

Result<void> inspect_qed(Source& source, const Samples& samples, Report& report) {
  constexpr std::string_view kFeatures[] = {"backing-file", "need-check", "backing-format-raw"};
  const auto& head = samples.head;
  const uint64_t cluster_size = load_little<uint32_t>(head, 4);
  const uint64_t table_clusters = load_little<uint32_t>(head, 8);
  const uint64_t features = load_little<uint64_t>(head, 16);
  const uint64_t size = load_little<uint64_t>(head, 48);
  for (unsigned bit = 0; bit < 64; ++bit) {
    if ((features >> bit & 1) == 0) continue;
    if (bit < std::size(kFeatures)) {
      report.features.emplace_back(kFeatures[bit]);
    } else if (report.unknown_features.size() < Report::kMaxListed) {
      report.unknown_features.push_back(fmt::format("incompatible bit {}", bit));
    }
  }
  if (!base::is_power_of_two(cluster_size) || cluster_size < kMinQedCluster ||
      cluster_size > kMaxQedCluster) {
    report.add_damage(fmt::format("Unsupported cluster size: {}", cluster_size));
  } else {
    report.cluster_size = cluster_size;
  }
  if (!base::is_power_of_two(table_clusters) || table_clusters > kMaxQedTableClusters) {
    report.add_damage(fmt::format("Unsupported table size: {} clusters", table_clusters));
  } else if (report.cluster_size != 0) {
    // Two levels of tables of this size map so much and no more.
    const uint64_t entries = table_clusters * cluster_size / kQedTableEntryBytes;
    const auto most = base::checked_mul(entries * entries, cluster_size);
    if (most && size > *most) report.add_damage("Image is too big");
  }
  if (size > INT64_MAX) {
    report.add_damage("Image is too big");
  } else {
    report.virtual_size = size;
  }
  if (load_little<uint64_t>(head, 40) >= report.file_size) {
    report.add_damage("The L1 table lies outside the file");
  }
  if ((features & 1) == 0) return {};
  return name_backing_file(source, load_little<uint32_t>(head, 56), load_little<uint32_t>(head, 60),
                           (features & 4) != 0 ? "raw" : "", report);
}

}  // namespace platter::inspect
