// The algorithms that encrypted images are made with, and their names.
//
// A cipher specification is what one volume uses: LUKS headers have it as a name and a mode ("aes",
// "xts-plain64"), options as four words (cipher-alg, cipher-mode, ivgen-alg, ivgen-hash-alg).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "platter/error.h"

namespace platter::crypto {

enum class CipherFamily : uint8_t { kAes, kCast5, kSerpent, kTwofish };

enum class CipherAlgorithm : uint8_t {
  kAes128,
  kAes192,
  kAes256,
  kCast5128,
  kSerpent128,
  kSerpent192,
  kSerpent256,
  kTwofish128,
  kTwofish192,
  kTwofish256,
};

enum class CipherMode : uint8_t { kEcb, kCbc, kXts, kCtr };

// How a sector's initialisation vector is made: its number in 32 or 64 bits, or that encrypted with
// a hash of the key.
enum class IvGenerator : uint8_t { kPlain, kPlain64, kEssiv };

enum class HashAlgorithm : uint8_t {
  kMd5,
  kSha1,
  kSha224,
  kSha256,
  kSha384,
  kSha512,
  kRipemd160,
};

struct CipherSpec {
  CipherAlgorithm algorithm = CipherAlgorithm::kAes256;
  CipherMode mode = CipherMode::kXts;
  IvGenerator iv_generator = IvGenerator::kPlain64;
  std::optional<HashAlgorithm> iv_hash = std::nullopt;  // kEssiv: always there
  bool operator==(const CipherSpec&) const = default;
};

inline constexpr size_t kMaxBlockBytes = 16;
inline constexpr size_t kMaxDigestBytes = 64;
inline constexpr size_t kMaxKeyBytes = 64;  // two halves of 32 with XTS

// "aes-256", "aes", "xts", "plain64", "sha256": as options and headers name them.
std::string_view name_of(CipherAlgorithm algorithm);
std::string_view name_of(CipherFamily family);
std::string_view name_of(CipherMode mode);
std::string_view name_of(IvGenerator generator);
std::string_view name_of(HashAlgorithm hash);
std::optional<CipherAlgorithm> find_cipher_algorithm(std::string_view name);
std::optional<CipherFamily> find_cipher_family(std::string_view name);
std::optional<CipherMode> find_cipher_mode(std::string_view name);
std::optional<IvGenerator> find_iv_generator(std::string_view name);
std::optional<HashAlgorithm> find_hash_algorithm(std::string_view name);

CipherFamily family_of(CipherAlgorithm algorithm);
size_t block_bytes(CipherAlgorithm algorithm);
// Of the cipher alone; XTS takes two such keys.
size_t cipher_key_bytes(CipherAlgorithm algorithm);
size_t key_bytes(const CipherSpec& spec);
size_t digest_bytes(HashAlgorithm hash);
// The member of the family whose key is that long.
std::optional<CipherAlgorithm> algorithm_with_key(CipherFamily family, size_t bytes);

// What encrypts the sector numbers of `spec`, which has kEssiv. ENOTSUP: the family has no member
// whose key is as long as the hash.
Result<CipherAlgorithm> essiv_algorithm(const CipherSpec& spec);
// Whether the parts fit together: XTS wants blocks of 16 bytes, ESSIV a hash that fits.
Result<void> check_spec(const CipherSpec& spec);

// "xts-plain64", "cbc-essiv:sha256".
std::string mode_text(const CipherSpec& spec);
// Fills all but the algorithm.
Result<void> parse_mode_text(std::string_view text, CipherSpec& spec);

}  // namespace platter::crypto
