// The header of a LUKS volume, version 1: bytes to a typed value and back.
//
// parse_luks_header() checks every field, once; code that holds a LuksHeader may rely on it:
//   - the cipher, mode, generator and hashes are ones that this room has, and fit together;
//   - key_bytes is the length of that cipher's key;
//   - each slot's key material lies behind the header, before the payload (unless that is detached)
//     and apart from every other slot's; stripes are kStripes; active slots and the digest have
//     at least one iteration.
// Specification: "LUKS On-Disk Format Specification", version 1.2.3; docs/format/luks.md.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "crypto/algorithms.h"
#include "platter/error.h"

namespace platter::crypto {

inline constexpr size_t kLuksHeaderBytes = 592;
inline constexpr size_t kLuksSlots = 8;
inline constexpr uint32_t kStripes = 4000;
inline constexpr size_t kSaltBytes = 32;
inline constexpr size_t kLuksDigestBytes = 20;
// Where key material begins, and what every slot's is aligned to.
inline constexpr uint64_t kLuksSlotAlignment = 4096;

struct LuksSlot {
  bool active = false;
  uint32_t iterations = 0;
  std::array<uint8_t, kSaltBytes> salt{};
  uint32_t key_sector = 0;  // of its key material
  bool operator==(const LuksSlot&) const = default;
};

struct LuksHeader {
  CipherSpec cipher;
  HashAlgorithm hash = HashAlgorithm::kSha256;  // of PBKDF2 and the anti-forensic splitter
  uint32_t payload_sector = 0;                  // 0: the payload is in a file of its own
  uint32_t key_bytes = 0;
  std::array<uint8_t, kLuksDigestBytes> digest{};
  std::array<uint8_t, kSaltBytes> digest_salt{};
  uint32_t digest_iterations = 0;
  std::string uuid;
  std::array<LuksSlot, kLuksSlots> slots{};

  uint64_t payload_offset() const { return uint64_t{payload_sector} * 512; }
  size_t active_slots() const;
  bool operator==(const LuksHeader&) const = default;
};

// Bytes of one slot's key material, as it is stored.
uint64_t key_material_bytes(const LuksHeader& header);
// Header and all key material: where the payload of a new volume begins.
uint64_t luks_payload_offset(size_t key_bytes);

Result<LuksHeader> parse_luks_header(std::span<const uint8_t> bytes);
std::vector<uint8_t> serialise_luks_header(const LuksHeader& header);  // kLuksHeaderBytes
// 100: a LUKS header of version 1; else 0.
int probe_luks(std::span<const uint8_t> head);

}  // namespace platter::crypto
