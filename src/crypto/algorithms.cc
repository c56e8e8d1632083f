#include "crypto/algorithms.h"

#include <array>
#include <cerrno>
#include <span>

#include "base/try.h"
#include "fmt/format.h"

namespace platter::crypto {
namespace {

struct CipherRow {
  std::string_view name;
  CipherFamily family;
  size_t key_bytes;
  size_t block_bytes;
};
// By the value of the enum, as all tables here.
constexpr std::array<CipherRow, 10> kCiphers = {{
    {"aes-128", CipherFamily::kAes, 16, 16},
    {"aes-192", CipherFamily::kAes, 24, 16},
    {"aes-256", CipherFamily::kAes, 32, 16},
    {"cast5-128", CipherFamily::kCast5, 16, 8},
    {"serpent-128", CipherFamily::kSerpent, 16, 16},
    {"serpent-192", CipherFamily::kSerpent, 24, 16},
    {"serpent-256", CipherFamily::kSerpent, 32, 16},
    {"twofish-128", CipherFamily::kTwofish, 16, 16},
    {"twofish-192", CipherFamily::kTwofish, 24, 16},
    {"twofish-256", CipherFamily::kTwofish, 32, 16},
}};
constexpr std::array<std::string_view, 4> kFamilies = {"aes", "cast5", "serpent", "twofish"};
constexpr std::array<std::string_view, 4> kFamilyTitles = {"AES", "CAST5", "Serpent", "Twofish"};
constexpr std::array<std::string_view, 4> kModes = {"ecb", "cbc", "xts", "ctr"};
constexpr std::array<std::string_view, 3> kIvGenerators = {"plain", "plain64", "essiv"};
struct HashRow {
  std::string_view name;
  size_t digest_bytes;
};
constexpr std::array<HashRow, 7> kHashes = {{
    {"md5", 16},
    {"sha1", 20},
    {"sha224", 28},
    {"sha256", 32},
    {"sha384", 48},
    {"sha512", 64},
    {"ripemd160", 20},
}};

template <typename Enum, size_t Size>
std::optional<Enum> find_name(const std::array<std::string_view, Size>& names,
                              std::string_view name) {
  for (size_t i = 0; i < Size; ++i)
    if (names[i] == name) return static_cast<Enum>(i);
  return std::nullopt;
}
template <typename Enum, typename Row, size_t Size>
std::optional<Enum> find_row(const std::array<Row, Size>& rows, std::string_view name) {
  for (size_t i = 0; i < Size; ++i)
    if (rows[i].name == name) return static_cast<Enum>(i);
  return std::nullopt;
}
template <typename Enum>
size_t index(Enum value) {
  return static_cast<size_t>(value);
}

}  // namespace

std::string_view name_of(CipherAlgorithm algorithm) { return kCiphers[index(algorithm)].name; }
std::string_view name_of(CipherFamily family) { return kFamilies[index(family)]; }
std::string_view name_of(CipherMode mode) { return kModes[index(mode)]; }
std::string_view name_of(IvGenerator generator) { return kIvGenerators[index(generator)]; }
std::string_view name_of(HashAlgorithm hash) { return kHashes[index(hash)].name; }

std::optional<CipherAlgorithm> find_cipher_algorithm(std::string_view name) {
  return find_row<CipherAlgorithm>(kCiphers, name);
}
std::optional<CipherFamily> find_cipher_family(std::string_view name) {
  return find_name<CipherFamily>(kFamilies, name);
}
std::optional<CipherMode> find_cipher_mode(std::string_view name) {
  return find_name<CipherMode>(kModes, name);
}
std::optional<IvGenerator> find_iv_generator(std::string_view name) {
  return find_name<IvGenerator>(kIvGenerators, name);
}
std::optional<HashAlgorithm> find_hash_algorithm(std::string_view name) {
  return find_row<HashAlgorithm>(kHashes, name);
}

CipherFamily family_of(CipherAlgorithm algorithm) { return kCiphers[index(algorithm)].family; }
size_t block_bytes(CipherAlgorithm algorithm) { return kCiphers[index(algorithm)].block_bytes; }
size_t cipher_key_bytes(CipherAlgorithm algorithm) { return kCiphers[index(algorithm)].key_bytes; }
size_t key_bytes(const CipherSpec& spec) {
  return cipher_key_bytes(spec.algorithm) * (spec.mode == CipherMode::kXts ? 2 : 1);
}
size_t digest_bytes(HashAlgorithm hash) { return kHashes[index(hash)].digest_bytes; }

std::optional<CipherAlgorithm> algorithm_with_key(CipherFamily family, size_t bytes) {
  for (size_t i = 0; i < kCiphers.size(); ++i)
    if (kCiphers[i].family == family && kCiphers[i].key_bytes == bytes)
      return static_cast<CipherAlgorithm>(i);
  return std::nullopt;
}

Result<CipherAlgorithm> essiv_algorithm(const CipherSpec& spec) {
  const CipherFamily family = family_of(spec.algorithm);
  const size_t bytes = digest_bytes(*spec.iv_hash);
  if (family == CipherFamily::kCast5)
    return fail(ENOTSUP,
                fmt::format("Cipher {} not supported with essiv", name_of(spec.algorithm)));
  if (auto algorithm = algorithm_with_key(family, bytes)) return *algorithm;
  return fail(ENOTSUP, fmt::format("No {} cipher with key size {} available",
                                   kFamilyTitles[index(family)], bytes));
}

Result<void> check_spec(const CipherSpec& spec) {
  if (spec.mode == CipherMode::kXts && block_bytes(spec.algorithm) != kMaxBlockBytes) {
    return fail(ENOTSUP, "Unsupported cipher mode xts");  // whose blocks are of 16 bytes
  }
  if (spec.iv_generator == IvGenerator::kEssiv) {
    if (!spec.iv_hash) return fail(EINVAL, "Hash algorithm not specified for ESSIV");
    PLATTER_TRY(essiv_algorithm(spec));
  }
  return {};
}

std::string mode_text(const CipherSpec& spec) {
  std::string text = fmt::format("{}-{}", name_of(spec.mode), name_of(spec.iv_generator));
  if (spec.iv_hash) text += fmt::format(":{}", name_of(*spec.iv_hash));
  return text;
}

Result<void> parse_mode_text(std::string_view text, CipherSpec& spec) {
  const size_t dash = text.find('-');
  if (dash == text.npos)
    return fail(EINVAL, fmt::format("Unexpected cipher mode string format '{}'", text));
  std::string_view generator = text.substr(dash + 1);
  const auto not_known = [](std::string_view what, std::string_view name) {
    return fail(ENOTSUP, fmt::format("{} '{}' is not recognized", what, name));
  };
  spec.iv_hash.reset();
  if (const size_t colon = generator.find(':'); colon != generator.npos) {
    const std::string_view hash = generator.substr(colon + 1);
    spec.iv_hash = find_hash_algorithm(hash);
    if (!spec.iv_hash) return not_known("Hash algorithm", hash);
    generator = generator.substr(0, colon);
  }
  const auto mode = find_cipher_mode(text.substr(0, dash));
  if (!mode) return not_known("Cipher mode", text.substr(0, dash));
  spec.mode = *mode;
  const auto iv_generator = find_iv_generator(generator);
  if (!iv_generator) return not_known("IV generator", generator);
  spec.iv_generator = *iv_generator;
  return {};
}

}  // namespace platter::crypto
