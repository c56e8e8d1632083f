#include "crypto/digest.h"

#include <nettle/hmac.h>
#include <nettle/nettle-meta.h>
#include <nettle/pbkdf2.h>
#include <sys/random.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/assert.h"

namespace platter::crypto {
namespace {

const nettle_hash& find_hash(HashAlgorithm algorithm) {
  switch (algorithm) {
    case HashAlgorithm::kMd5: return nettle_md5;
    case HashAlgorithm::kSha1: return nettle_sha1;
    case HashAlgorithm::kSha224: return nettle_sha224;
    case HashAlgorithm::kSha256: return nettle_sha256;
    case HashAlgorithm::kSha384: return nettle_sha384;
    case HashAlgorithm::kSha512: return nettle_sha512;
    case HashAlgorithm::kRipemd160: break;
  }
  return nettle_ripemd160;
}

struct Derivation {
  std::span<const uint8_t> passphrase;
  std::span<const uint8_t> salt;
  uint32_t iterations;
  std::span<uint8_t> key;
};

// One HMAC of Nettle's, whose functions differ in the type of their context alone.
template <typename Context, auto set_key, auto update, auto digest>
void derive(const Derivation& what, size_t digest_size) {
  Context context;
  set_key(&context, what.passphrase.size(), what.passphrase.data());
  nettle_pbkdf2(
      &context,
      [](void* c, size_t length, const uint8_t* data) {
        update(static_cast<Context*>(c), length, data);
      },
      [](void* c, size_t length, uint8_t* out) { digest(static_cast<Context*>(c), length, out); },
      digest_size, what.iterations, what.salt.size(), what.salt.data(), what.key.size(),
      what.key.data());
  explicit_bzero(&context, sizeof context);
}

uint64_t thread_time_ns() {
  timespec time;
  PLATTER_ASSERT(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time) == 0);
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_nsec);
}

}  // namespace

void hash(HashAlgorithm algorithm, std::span<const std::span<const uint8_t>> parts,
          std::span<uint8_t> out) {
  PLATTER_ASSERT(out.size() == digest_bytes(algorithm));
  const nettle_hash& function = find_hash(algorithm);
  base::SecretBytes context(function.context_size);
  function.init(context.data());
  for (const auto part : parts) function.update(context.data(), part.size(), part.data());
  function.digest(context.data(), static_cast<unsigned>(out.size()), out.data());
}

base::SecretBytes derive_key(HashAlgorithm algorithm, std::span<const uint8_t> passphrase,
                             std::span<const uint8_t> salt, uint32_t iterations, size_t key_bytes) {
  PLATTER_ASSERT(iterations > 0);
  base::SecretBytes key(key_bytes);
  const Derivation what = {passphrase, salt, iterations, key.span()};
  const size_t size = digest_bytes(algorithm);
  switch (algorithm) {
    case HashAlgorithm::kMd5:
      derive<hmac_md5_ctx, hmac_md5_set_key, hmac_md5_update, hmac_md5_digest>(what, size);
      break;
    case HashAlgorithm::kSha1:
      derive<hmac_sha1_ctx, hmac_sha1_set_key, hmac_sha1_update, hmac_sha1_digest>(what, size);
      break;
    case HashAlgorithm::kSha224:
      derive<hmac_sha224_ctx, hmac_sha224_set_key, hmac_sha224_update, hmac_sha224_digest>(what,
                                                                                           size);
      break;
    case HashAlgorithm::kSha256:
      derive<hmac_sha256_ctx, hmac_sha256_set_key, hmac_sha256_update, hmac_sha256_digest>(what,
                                                                                           size);
      break;
    case HashAlgorithm::kSha384:
      derive<hmac_sha512_ctx, hmac_sha384_set_key, hmac_sha384_update, hmac_sha384_digest>(what,
                                                                                           size);
      break;
    case HashAlgorithm::kSha512:
      derive<hmac_sha512_ctx, hmac_sha512_set_key, hmac_sha512_update, hmac_sha512_digest>(what,
                                                                                           size);
      break;
    case HashAlgorithm::kRipemd160:
      derive<hmac_ripemd160_ctx, hmac_ripemd160_set_key, hmac_ripemd160_update,
             hmac_ripemd160_digest>(what, size);
      break;
  }
  return key;
}

uint64_t measure_iterations(HashAlgorithm algorithm, size_t key_bytes, uint64_t time_ms) {
  const uint64_t enough_ns = std::clamp<uint64_t>(time_ms, 1, 30) * 1'000'000;
  constexpr uint32_t kFirst = 1 << 10;
  constexpr uint32_t kMost = 1 << 28;
  constexpr std::array<uint8_t, 32> kSample = {};
  for (uint32_t iterations = kFirst;; iterations *= 2) {
    const uint64_t begin = thread_time_ns();
    derive_key(algorithm, kSample, kSample, iterations, key_bytes);
    const uint64_t took = thread_time_ns() - begin;
    if (took >= enough_ns || iterations >= kMost)
      return iterations * uint64_t{1'000'000'000} / (took == 0 ? 1 : took);
  }
}

void fill_random(std::span<uint8_t> bytes) {
  while (!bytes.empty()) {
    const ssize_t got = getrandom(bytes.data(), bytes.size(), 0);
    if (got < 0) {
      PLATTER_ASSERT(errno == EINTR);
      continue;
    }
    bytes = bytes.subspan(static_cast<size_t>(got));
  }
}

}  // namespace platter::crypto
