#include "crypto/luks_header.h"

#include <algorithm>
#include <cerrno>
#include <string_view>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/math.h"
#include "base/try.h"
#include "crypto/sector_cipher.h"
#include "fmt/format.h"

namespace platter::crypto {

using base::load_big;
using base::store_big;

namespace {

constexpr std::array<uint8_t, 6> kMagic = {'L', 'U', 'K', 'S', 0xba, 0xbe};
constexpr uint16_t kVersion = 1;
constexpr uint32_t kActive = 0x00ac71f3;
constexpr uint32_t kInactive = 0x0000dead;
constexpr size_t kNameBytes = 32;
constexpr size_t kUuidBytes = 40;

// Byte offsets.
constexpr size_t kVersionAt = 6;
constexpr size_t kCipherNameAt = 8;
constexpr size_t kCipherModeAt = 40;
constexpr size_t kHashAt = 72;
constexpr size_t kPayloadAt = 104;
constexpr size_t kKeyBytesAt = 108;
constexpr size_t kDigestAt = 112;
constexpr size_t kDigestSaltAt = 132;
constexpr size_t kDigestIterationsAt = 164;
constexpr size_t kUuidAt = 168;
constexpr size_t kSlotsAt = 208;
constexpr size_t kSlotBytes = 48;
// Within a slot.
constexpr size_t kIterationsAt = 4;
constexpr size_t kSaltAt = 8;
constexpr size_t kKeySectorAt = 40;
constexpr size_t kStripesAt = 44;

Result<std::string> load_text(std::span<const uint8_t> field, std::string_view what) {
  const auto end = std::ranges::find(field, uint8_t{0});
  if (end == field.end())
    return fail(EINVAL, fmt::format("LUKS header {} is not NUL terminated", what));
  return std::string(field.begin(), end);
}

Result<void> load_cipher(std::span<const uint8_t> bytes, LuksHeader& header) {
  PLATTER_ASSIGN(const auto name,
                 load_text(bytes.subspan(kCipherNameAt, kNameBytes), "cipher name"));
  PLATTER_ASSIGN(const auto mode,
                 load_text(bytes.subspan(kCipherModeAt, kNameBytes), "cipher mode"));
  PLATTER_ASSIGN(const auto hash_name, load_text(bytes.subspan(kHashAt, kNameBytes), "hash spec"));
  PLATTER_TRY(parse_mode_text(mode, header.cipher));
  const auto hash = find_hash_algorithm(hash_name);
  if (!hash) return fail(ENOTSUP, fmt::format("Hash algorithm '{}' is not recognized", hash_name));
  header.hash = *hash;
  const auto family = find_cipher_family(name);
  if (!family) {
    return fail(ENOTSUP, fmt::format("Algorithm '{}' with key size {} bytes not supported", name,
                                     header.key_bytes));
  }
  const bool xts = header.cipher.mode == CipherMode::kXts;
  if (xts && header.key_bytes % 2 != 0)
    return fail(EINVAL, "XTS cipher key length should be a multiple of 2");
  const size_t bytes_each = header.key_bytes / (xts ? 2 : 1);
  const auto algorithm = algorithm_with_key(*family, bytes_each);
  if (!algorithm) {
    return fail(ENOTSUP, fmt::format("No {} cipher with key size {} available", name, bytes_each));
  }
  header.cipher.algorithm = *algorithm;
  return check_spec(header.cipher);
}

Result<void> load_slot(std::span<const uint8_t> bytes, size_t index, LuksSlot& slot) {
  const uint32_t state = load_big<uint32_t>(bytes, 0);
  const uint32_t stripes = load_big<uint32_t>(bytes, kStripesAt);
  slot.iterations = load_big<uint32_t>(bytes, kIterationsAt);
  slot.key_sector = load_big<uint32_t>(bytes, kKeySectorAt);
  std::ranges::copy(bytes.subspan(kSaltAt, kSaltBytes), slot.salt.begin());
  if (stripes != kStripes) {
    return fail(EINVAL, fmt::format("Keyslot {} is corrupted (stripes {} != {})", index,
                                    static_cast<int32_t>(stripes), kStripes));
  }
  if (state != kActive && state != kInactive)
    return fail(EINVAL, fmt::format("Keyslot {} state (active/disable) is corrupted", index));
  slot.active = state == kActive;
  if (slot.active && slot.iterations == 0)
    return fail(EINVAL, fmt::format("Keyslot {} iteration count is zero", index));
  return {};
}

// Key material lies where nothing else does.
Result<void> check_places(const LuksHeader& header) {
  const uint64_t header_sectors = kLuksSlotAlignment / kSectorBytes;
  const uint64_t length = base::divide_round_up(key_material_bytes(header), kSectorBytes);
  if (header.payload_sector != 0 && header.payload_sector < header_sectors)
    return fail(EINVAL, "LUKS payload is overlapping with the header");
  for (size_t i = 0; i < kLuksSlots; ++i) {
    const uint64_t begin = header.slots[i].key_sector;
    if (begin < base::divide_round_up(kLuksHeaderBytes, kSectorBytes))
      return fail(EINVAL, fmt::format("Keyslot {} is overlapping with the LUKS header", i));
    if (header.payload_sector != 0 && begin + length > header.payload_sector)
      return fail(EINVAL, fmt::format("Keyslot {} is overlapping with the encrypted payload", i));
    for (size_t j = i + 1; j < kLuksSlots; ++j) {
      const uint64_t other = header.slots[j].key_sector;
      if (begin < other + length && other < begin + length)
        return fail(EINVAL, fmt::format("Keyslots {} and {} are overlapping in the header", i, j));
    }
  }
  return {};
}

void store_text(std::span<uint8_t> field, std::string_view text) {
  PLATTER_ASSERT(text.size() < field.size());
  std::ranges::copy(text, field.begin());
}

}  // namespace

size_t LuksHeader::active_slots() const {
  return static_cast<size_t>(std::ranges::count_if(slots, &LuksSlot::active));
}

uint64_t key_material_bytes(const LuksHeader& header) {
  return base::align_up(uint64_t{header.key_bytes} * kStripes, kSectorBytes);
}

uint64_t luks_payload_offset(size_t key_bytes) {
  const uint64_t slot = base::align_up(uint64_t{key_bytes} * kStripes, kLuksSlotAlignment);
  return kLuksSlotAlignment + kLuksSlots * slot;
}

Result<LuksHeader> parse_luks_header(std::span<const uint8_t> bytes) {
  if (bytes.size() < kLuksHeaderBytes || !std::ranges::equal(bytes.first(kMagic.size()), kMagic))
    return fail(EINVAL, "Volume is not in LUKS format");
  const uint16_t version = load_big<uint16_t>(bytes, kVersionAt);
  if (version != kVersion)
    return fail(ENOTSUP, fmt::format("LUKS version {} is not supported", version));
  LuksHeader header;
  header.payload_sector = load_big<uint32_t>(bytes, kPayloadAt);
  header.key_bytes = load_big<uint32_t>(bytes, kKeyBytesAt);
  PLATTER_TRY(load_cipher(bytes, header));
  std::ranges::copy(bytes.subspan(kDigestAt, kLuksDigestBytes), header.digest.begin());
  std::ranges::copy(bytes.subspan(kDigestSaltAt, kSaltBytes), header.digest_salt.begin());
  header.digest_iterations = load_big<uint32_t>(bytes, kDigestIterationsAt);
  if (header.digest_iterations == 0) return fail(EINVAL, "LUKS key iteration count is zero");
  const auto uuid = bytes.subspan(kUuidAt, kUuidBytes);
  header.uuid.assign(uuid.begin(), std::ranges::find(uuid, uint8_t{0}));
  for (size_t i = 0; i < kLuksSlots; ++i)
    PLATTER_TRY(
        load_slot(bytes.subspan(kSlotsAt + i * kSlotBytes, kSlotBytes), i, header.slots[i]));
  PLATTER_TRY(check_places(header));
  return header;
}

std::vector<uint8_t> serialise_luks_header(const LuksHeader& header) {
  std::vector<uint8_t> bytes(kLuksHeaderBytes);
  const std::span<uint8_t> out(bytes);
  std::ranges::copy(kMagic, out.begin());
  store_big(out, kVersionAt, kVersion);
  store_text(out.subspan(kCipherNameAt, kNameBytes), name_of(family_of(header.cipher.algorithm)));
  store_text(out.subspan(kCipherModeAt, kNameBytes), mode_text(header.cipher));
  store_text(out.subspan(kHashAt, kNameBytes), name_of(header.hash));
  store_big(out, kPayloadAt, header.payload_sector);
  store_big(out, kKeyBytesAt, header.key_bytes);
  std::ranges::copy(header.digest, out.subspan(kDigestAt).begin());
  std::ranges::copy(header.digest_salt, out.subspan(kDigestSaltAt).begin());
  store_big(out, kDigestIterationsAt, header.digest_iterations);
  store_text(out.subspan(kUuidAt, kUuidBytes + 1), header.uuid);
  for (size_t i = 0; i < kLuksSlots; ++i) {
    const std::span<uint8_t> slot = out.subspan(kSlotsAt + i * kSlotBytes, kSlotBytes);
    store_big(slot, 0, header.slots[i].active ? kActive : kInactive);
    store_big(slot, kIterationsAt, header.slots[i].iterations);
    std::ranges::copy(header.slots[i].salt, slot.subspan(kSaltAt).begin());
    store_big(slot, kKeySectorAt, header.slots[i].key_sector);
    store_big(slot, kStripesAt, kStripes);
  }
  return bytes;
}

int probe_luks(std::span<const uint8_t> head) {
  if (head.size() < kVersionAt + 2 || !std::ranges::equal(head.first(kMagic.size()), kMagic))
    return 0;
  return load_big<uint16_t>(head, kVersionAt) == kVersion ? 100 : 0;
}

}  // namespace platter::crypto
