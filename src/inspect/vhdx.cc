// VHDX, as far as a policy judges it: the region table, the metadata in it, the parent locator.
// Specification: Microsoft, [MS-VHDX].

#include <algorithm>

#include "base/bytes.h"
#include "base/math.h"
#include "base/try.h"
#include "fmt/format.h"
#include "inspect/formats.h"

namespace platter::inspect {

using base::load_little;

namespace {

constexpr uint64_t kRegionTables[] = {192 << 10, 256 << 10};
constexpr uint64_t kTableBytes = 64 << 10;
constexpr unsigned kMaxTableEntries = 2047;
constexpr size_t kRegionEntries = 16;
constexpr size_t kMetadataEntries = 32;
constexpr size_t kEntryBytes = 32;
constexpr uint32_t kRegionRequired = 1;
constexpr uint32_t kItemRequired = 4;
constexpr uint32_t kHasParent = 2;
constexpr uint64_t kMinBlockBytes = uint64_t{1} << 20;
constexpr uint64_t kMaxBlockBytes = uint64_t{256} << 20;
constexpr uint64_t kMaxSize = uint64_t{64} << 40;
constexpr uint64_t kMaxItemBytes = uint64_t{1} << 20;
constexpr size_t kLocatorHeaderBytes = 20;
constexpr size_t kLocatorEntryBytes = 12;

constexpr std::string_view kBatRegion = "2dc27766-f623-4200-9d64-115e9bfd4a08";
constexpr std::string_view kMetadataRegion = "8b7ca206-4790-4b9a-b8fe-575f050f886e";
constexpr std::string_view kFileParameters = "caa16737-fa36-4d43-b3b6-33f0aa44e76b";
constexpr std::string_view kVirtualDiskSize = "2fa54224-cd1b-4876-b211-5dbed83bf4b8";
constexpr std::string_view kPage83 = "beca12ab-b2e6-4523-93ef-c309e000c746";
constexpr std::string_view kLogicalSector = "8141bf1d-a96f-4709-ba47-f233a8faab5f";
constexpr std::string_view kPhysicalSector = "cda348c7-445d-4471-9cc9-e9885251c556";
constexpr std::string_view kParentLocator = "a8d35f2d-b30b-454d-abf7-d3d84834ab0c";

struct Region {
  uint64_t offset = 0;
  uint64_t length = 0;
};

void add_unknown(std::string_view what, const std::string& guid, Report& report) {
  if (report.unknown_features.size() < Report::kMaxListed) {
    report.unknown_features.push_back(fmt::format("{} {}", what, guid));
  }
}

// The metadata region, if there is one.
Region read_regions(std::span<const uint8_t> table, Report& report) {
  Region metadata;
  const unsigned count = load_little<uint32_t>(table, 8);
  if (count > kMaxTableEntries) {
    report.add_damage(fmt::format("Its region table has {} entries", count));
    return metadata;
  }
  for (unsigned i = 0; i < count; ++i) {
    const size_t entry = kRegionEntries + i * kEntryBytes;
    const std::string guid = guid_text(table, entry);
    const Region region{load_little<uint64_t>(table, entry + 16),
                        load_little<uint32_t>(table, entry + 24)};
    if (!base::range_within(region.offset, region.length, report.file_size)) {
      report.add_damage(fmt::format("Region {} lies outside the file", guid));
    } else if (guid == kMetadataRegion) {
      metadata = region;
    } else if (guid != kBatRegion && load_little<uint32_t>(table, entry + 28) & kRegionRequired) {
      add_unknown("required region", guid, report);
    }
  }
  return metadata;
}

void read_file_parameters(std::span<const uint8_t> item, Report& report, bool& has_parent) {
  const uint64_t block = load_little<uint32_t>(item, 0);
  if (!base::is_power_of_two(block) || block < kMinBlockBytes || block > kMaxBlockBytes) {
    report.add_damage(fmt::format("Invalid block size {}", block));
  } else {
    report.cluster_size = block;
  }
  has_parent = load_little<uint32_t>(item, 4) & kHasParent;
}

void read_size(std::span<const uint8_t> item, Report& report) {
  const uint64_t size = load_little<uint64_t>(item, 0);
  if (size == 0 || size > kMaxSize) {
    report.add_damage(fmt::format("Impossible size of {} bytes", size));
  } else {
    report.virtual_size = size;
  }
}

void read_sector_size(std::span<const uint8_t> item, Report& report) {
  const uint32_t size = load_little<uint32_t>(item, 0);
  if (size != 512 && size != 4096) {
    report.add_damage(fmt::format("Invalid sector size {}", size));
  }
}

// Keys and values in UTF-16; each value is a name for the parent.
void read_parent_locator(std::span<const uint8_t> item, Report& report) {
  const unsigned count = load_little<uint16_t>(item, 18);
  for (unsigned i = 0; i < count; ++i) {
    const size_t entry = kLocatorHeaderBytes + i * kLocatorEntryBytes;
    if (entry + kLocatorEntryBytes > item.size()) break;
    const uint64_t key = load_little<uint32_t>(item, entry);
    const uint64_t value = load_little<uint32_t>(item, entry + 4);
    const uint64_t key_length = load_little<uint16_t>(item, entry + 8);
    const uint64_t value_length = load_little<uint16_t>(item, entry + 10);
    if (!base::range_within(key, key_length, item.size()) ||
        !base::range_within(value, value_length, item.size())) {
      report.add_damage("Its parent locator is malformed");
      break;
    }
    if (utf16_text(item.subspan(key, key_length), false).ends_with("path")) {
      report.add_reference(ReferenceKind::kParent,
                           utf16_text(item.subspan(value, value_length), false));
    }
  }
}

// Bytes that an item must have to be read; nullopt: an unknown one.
std::optional<uint64_t> item_bytes(std::string_view guid) {
  if (guid == kFileParameters || guid == kVirtualDiskSize) return 8;
  if (guid == kLogicalSector || guid == kPhysicalSector) return 4;
  if (guid == kPage83) return 16;
  if (guid == kParentLocator) return kLocatorHeaderBytes;
  return std::nullopt;
}

Result<void> read_metadata(Source& source, const Region& region, Report& report) {
  PLATTER_ASSIGN(const auto table, source.read(region.offset, kTableBytes));
  const unsigned count = load_little<uint16_t>(table, 10);
  if (!starts_with(table, "metadata") || count > kMaxTableEntries) {
    report.add_damage("Its metadata table is malformed");
    return {};
  }
  bool has_parent = false;
  for (unsigned i = 0; i < count; ++i) {
    const size_t entry = kMetadataEntries + i * kEntryBytes;
    if (entry + kEntryBytes > table.size()) break;
    const std::string guid = guid_text(table, entry);
    const uint64_t offset = load_little<uint32_t>(table, entry + 16);
    const uint64_t length = load_little<uint32_t>(table, entry + 20);
    const auto needed = item_bytes(guid);
    if (!needed) {
      if (load_little<uint32_t>(table, entry + 24) & kItemRequired) {
        add_unknown("required metadata item", guid, report);
      }
      continue;
    }
    if (length < *needed || length > kMaxItemBytes ||
        !base::range_within(offset, length, region.length)) {
      report.add_damage(fmt::format("Metadata item {} is malformed", guid));
      continue;
    }
    PLATTER_ASSIGN(const auto item, source.read(region.offset + offset, length));
    if (guid == kFileParameters) read_file_parameters(item, report, has_parent);
    if (guid == kVirtualDiskSize) read_size(item, report);
    if (guid == kLogicalSector || guid == kPhysicalSector) read_sector_size(item, report);
    if (guid == kParentLocator) read_parent_locator(item, report);
  }
  if (has_parent && report.references_total == 0) {
    report.add_reference(ReferenceKind::kParent, {});
  }
  if (report.cluster_size == 0) report.add_damage("It has no valid file parameters");
  if (!report.virtual_size) report.add_damage("It does not say its size");
  return {};
}

}  // namespace

Result<void> inspect_vhdx(Source& source, const Samples&, Report& report) {
  for (const uint64_t offset : kRegionTables) {
    PLATTER_ASSIGN(const auto table, source.read(offset, kTableBytes + kEntryBytes));
    if (!starts_with(table, "regi")) continue;
    const Region metadata = read_regions(table, report);
    if (metadata.length == 0) {
      report.add_damage("It has no metadata region");
      return {};
    }
    return read_metadata(source, metadata, report);
  }
  report.add_damage("It has no region table");
  return {};
}

}  // namespace platter::inspect
