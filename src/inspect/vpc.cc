// VHD ("vpc"), as far as a policy judges it.
// Specification: Microsoft, "Virtual Hard Disk Image Format Specification", 1.0.

#include <algorithm>

#include "base/bytes.h"
#include "base/math.h"
#include "base/try.h"
#include "fmt/format.h"
#include "inspect/formats.h"

namespace platter::inspect {

using base::load_big;

namespace {

constexpr size_t kFooterBytes = 512;
constexpr uint64_t kDynamicHeaderBytes = 1024;
constexpr uint32_t kFixed = 2;
constexpr uint32_t kDynamic = 3;
constexpr uint32_t kDifferencing = 4;
constexpr size_t kFooterChecksum = 64;
constexpr size_t kDynamicChecksum = 36;
constexpr uint64_t kSectorBytes = 512;
constexpr uint64_t kMaxBlockBytes = uint64_t{256} << 20;
constexpr uint64_t kTableEntryBytes = 4;
// A geometry that is at its limit says nothing about a disk that may be larger.
constexpr uint64_t kMaxGeometrySectors = uint64_t{65535} * 16 * 255;

// Sum of all bytes but those of the checksum itself, inverted.
bool has_valid_checksum(std::span<const uint8_t> bytes, size_t checksum_offset) {
  uint32_t sum = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (i < checksum_offset || i >= checksum_offset + 4) sum += bytes[i];
  }
  return ~sum == load_big<uint32_t>(bytes, checksum_offset);
}

// Programs that size a disk by its geometry write one that says its size; others write the size.
uint64_t virtual_size(std::span<const uint8_t> footer) {
  constexpr std::string_view kSizedExactly[] = {"win ", "qem2", "d2v ", "tap", "vs  "};
  const uint64_t current = load_big<uint64_t>(footer, 48);
  const uint64_t sectors = uint64_t{load_big<uint16_t>(footer, 56)} * footer[58] * footer[59];
  for (const auto creator : kSizedExactly) {
    if (starts_with(footer, creator, 28)) return current;
  }
  return sectors == kMaxGeometrySectors ? current : sectors * kSectorBytes;
}

void name_parent(std::span<const uint8_t> header, Report& report) {
  report.add_reference(ReferenceKind::kParent, utf16_text(header.subspan(64, 512), true));
}

Result<void> inspect_dynamic(Source& source, std::span<const uint8_t> footer, uint32_t type,
                             Report& report) {
  const uint64_t header_offset = load_big<uint64_t>(footer, 16);
  if (!base::range_within(header_offset, kDynamicHeaderBytes, report.file_size)) {
    report.add_damage("Its dynamic disk header lies outside the file");
    return {};
  }
  PLATTER_ASSIGN(const auto bytes, source.read(header_offset, kDynamicHeaderBytes));
  const std::span<const uint8_t> header = bytes;
  if (!starts_with(header, "cxsparse")) report.add_damage("It has no dynamic disk header");
  if (!has_valid_checksum(header, kDynamicChecksum)) {
    report.add_damage("The checksum of its dynamic disk header is wrong");
  }
  const uint64_t table_offset = load_big<uint64_t>(header, 16);
  const uint64_t entries = load_big<uint32_t>(header, 28);
  const uint64_t block_size = load_big<uint32_t>(header, 32);
  if (!base::is_power_of_two(block_size) || block_size < kSectorBytes ||
      block_size > kMaxBlockBytes) {
    report.add_damage(fmt::format("Invalid block size {}", block_size));
  } else {
    report.cluster_size = block_size;
    if (report.virtual_size && entries * block_size < *report.virtual_size) {
      report.add_damage("Its block allocation table is too small for its size");
    }
  }
  if (!base::range_within(table_offset, entries * kTableEntryBytes, report.file_size)) {
    report.add_damage("Its block allocation table lies outside the file");
  }
  if (type == kDifferencing) name_parent(header, report);
  return {};
}

}  // namespace

bool has_vpc_footer(const Samples& samples) {
  return samples.file_size >= kFooterBytes &&
         starts_with(samples.tail, "conectix", samples.tail.size() - kFooterBytes);
}

Result<void> inspect_vpc(Source& source, const Samples& samples, Report& report) {
  const bool in_front = starts_with(samples.head, "conectix");
  const auto footer = in_front ? std::span(samples.head).first(kFooterBytes)
                               : std::span(samples.tail).last(kFooterBytes);
  if (!has_valid_checksum(footer, kFooterChecksum)) {
    report.add_damage("The checksum of its footer is wrong");
  }
  if (in_front && !has_vpc_footer(samples)) report.add_damage("Its footer is missing");
  const uint64_t size = virtual_size(footer);
  if (size == 0 || size > INT64_MAX) {
    report.add_damage(fmt::format("Impossible size of {} bytes", size));
  } else {
    report.virtual_size = size;
  }
  const uint32_t type = load_big<uint32_t>(footer, 60);
  switch (type) {
    case kFixed: report.subformat = "fixed"; break;
    case kDynamic: report.subformat = "dynamic"; break;
    case kDifferencing: report.subformat = "differencing"; break;
    default: report.add_damage(fmt::format("Unknown disk type {}", type)); return {};
  }
  if (type == kFixed) return {};
  return inspect_dynamic(source, footer, type, report);
}

}  // namespace platter::inspect
