// VDI, LUKS and Parallels, as far as a policy judges them.
// Specifications: VirtualBox's VDI header; the LUKS1 on-disk format and LUKS2; Parallels'
// expandable image (docs of the respective projects).

#include <algorithm>

#include "base/bytes.h"
#include "base/math.h"
#include "base/try.h"
#include "crypto/luks_keys.h"
#include "fmt/format.h"
#include "inspect/formats.h"

namespace platter::inspect {

using base::load_big;
using base::load_little;

namespace {

constexpr uint64_t kSectorBytes = 512;

constexpr uint32_t kVdiVersion = 0x00010001;
constexpr uint64_t kVdiTableEntryBytes = 4;
constexpr size_t kVdiParentUuid = 440;

constexpr uint64_t kLuks1Bytes = 592;
constexpr uint64_t kMaxLuks2HeaderBytes = uint64_t{4} << 20;
constexpr size_t kDigestIterations = 164;
constexpr unsigned kKeySlots = 8;
constexpr size_t kKeySlotOffset = 208;
constexpr size_t kKeySlotBytes = 48;
constexpr uint32_t kKeySlotActive = 0x00ac71f3;
constexpr uint32_t kKeySlotInactive = 0x0000dead;

constexpr uint32_t kParallelsVersion = 2;
constexpr uint64_t kMaxParallelsEntries = uint64_t{1} << 29;
constexpr uint64_t kParallelsHeaderBytes = 64;

void judge_key_slots(std::span<const uint8_t> head, Report& report) {
  for (unsigned i = 0; i < kKeySlots; ++i) {
    const size_t slot = kKeySlotOffset + i * kKeySlotBytes;
    const uint32_t state = load_big<uint32_t>(head, slot);
    if (state != kKeySlotActive && state != kKeySlotInactive) {
      report.add_damage(fmt::format("Key slot {} is neither active nor inactive", i));
    }
    const uint64_t offset = uint64_t{load_big<uint32_t>(head, slot + 40)} * kSectorBytes;
    const uint32_t stripes = load_big<uint32_t>(head, slot + 44);
    const uint64_t length = uint64_t{stripes} * load_big<uint32_t>(head, 108);
    if (state == kKeySlotActive && !base::range_within(offset, length, report.file_size)) {
      report.add_damage(fmt::format("Key slot {} lies outside the file", i));
    }
    const uint32_t iterations = load_big<uint32_t>(head, slot + 4);
    if (state == kKeySlotActive && iterations > crypto::kMaxUnlockRounds) {
      report.add_damage(fmt::format("Key slot {} takes {} iterations to try", i, iterations));
    }
  }
  const uint32_t iterations = load_big<uint32_t>(head, kDigestIterations);
  if (iterations > crypto::kMaxUnlockRounds)
    report.add_damage(fmt::format("The digest of its key takes {} iterations", iterations));
}

}  // namespace

Result<void> inspect_vdi(Source&, const Samples& samples, Report& report) {
  constexpr std::string_view kTypes[] = {"dynamic", "fixed", "undo", "differencing"};
  const auto& head = samples.head;
  const uint32_t version = load_little<uint32_t>(head, 68);
  report.version = version >> 16;
  if (version != kVdiVersion) {
    report.add_damage(
        fmt::format("Unsupported VDI version {}.{}", version >> 16, version & 0xffff));
  }
  const uint32_t type = load_little<uint32_t>(head, 76);
  if (type >= 1 && type <= std::size(kTypes)) {
    report.subformat = kTypes[type - 1];
  } else {
    report.add_damage(fmt::format("Unknown image type {}", type));
  }
  const uint64_t size = load_little<uint64_t>(head, 368);
  const uint64_t block = load_little<uint32_t>(head, 376);
  const uint64_t blocks = load_little<uint32_t>(head, 384);
  if (load_little<uint32_t>(head, 360) != kSectorBytes) {
    report.add_damage(fmt::format("Unsupported sector size {}", load_little<uint32_t>(head, 360)));
  }
  if (!base::is_power_of_two(block) || block < kSectorBytes) {
    report.add_damage(fmt::format("Invalid block size {}", block));
  } else {
    report.cluster_size = block;
    if (size > blocks * block) report.add_damage("Its block map is too small for its size");
  }
  if (size > INT64_MAX) {
    report.add_damage("Image is too big");
  } else {
    report.virtual_size = size;
  }
  if (!base::range_within(load_little<uint32_t>(head, 340), blocks * kVdiTableEntryBytes,
                          report.file_size)) {
    report.add_damage("Its block map lies outside the file");
  }
  const bool has_parent = !base::is_zero(std::span(head).subspan(kVdiParentUuid, 16));
  if (has_parent || type > 2) {
    report.add_reference(ReferenceKind::kParent, "uuid " + guid_text(head, kVdiParentUuid));
  }
  return {};
}

Result<void> inspect_luks(Source&, const Samples& samples, Report& report) {
  const auto& head = samples.head;
  const unsigned version = load_big<uint16_t>(head, 6);
  report.version = version;
  report.encryption = fmt::format("luks{}", version);
  if (version == 2) {
    const uint64_t bytes = load_big<uint64_t>(head, 8);
    if (bytes > kMaxLuks2HeaderBytes || 2 * bytes > report.file_size) {
      report.add_damage("Its headers lie outside the file");
    }
    return {};  // where the payload begins stands in its JSON area
  }
  if (version != 1) {
    report.add_damage(fmt::format("Unsupported LUKS version {}", version));
    return {};
  }
  report.features.push_back(fmt::format("cipher {}-{}", bounded_text(text_at(head, 8, 32)),
                                        bounded_text(text_at(head, 40, 32))));
  const uint64_t payload = uint64_t{load_big<uint32_t>(head, 104)} * kSectorBytes;
  if (payload < kLuks1Bytes || payload > report.file_size) {
    report.add_damage("Its payload lies outside the file");
  } else {
    report.virtual_size = report.file_size - payload;
  }
  judge_key_slots(head, report);
  return {};
}

Result<void> inspect_parallels(Source&, const Samples& samples, Report& report) {
  const auto& head = samples.head;
  const bool extended = starts_with(head, "WithouFreSpacExt");
  const uint32_t version = load_little<uint32_t>(head, 16);
  report.version = version;
  if (version != kParallelsVersion) {
    report.add_damage(fmt::format("Unsupported Parallels version {}", version));
  }
  const uint64_t block = uint64_t{load_little<uint32_t>(head, 28)} * kSectorBytes;
  const uint64_t entries = load_little<uint32_t>(head, 32);
  const uint64_t sectors =
      extended ? load_little<uint64_t>(head, 36) : load_little<uint32_t>(head, 36);
  if (block == 0 || block > INT32_MAX) {
    report.add_damage(fmt::format("Invalid block size {}", block));
  } else {
    report.cluster_size = block;
  }
  if (sectors > INT64_MAX / kSectorBytes) {
    report.add_damage(fmt::format("Impossible size of {} sectors", sectors));
  } else {
    report.virtual_size = sectors * kSectorBytes;
    if (block != 0 && entries < base::divide_round_up(sectors * kSectorBytes, block)) {
      report.add_damage("Its block table is too small for its size");
    }
  }
  if (entries > kMaxParallelsEntries ||
      !base::range_within(kParallelsHeaderBytes, entries * 4, report.file_size)) {
    report.add_damage("Its block table lies outside the file");
  }
  return {};
}

}  // namespace platter::inspect
