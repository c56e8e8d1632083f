// Hashes, key derivation and randomness.
#pragma once

#include <cstdint>
#include <span>

#include "base/secret_bytes.h"
#include "crypto/algorithms.h"
#include "platter/error.h"

namespace platter::crypto {

// `out` has digest_bytes(algorithm).
void hash(HashAlgorithm algorithm, std::span<const std::span<const uint8_t>> parts,
          std::span<uint8_t> out);

// PBKDF2 (RFC 8018) with HMAC. Takes as long as `iterations` (at least 1) say: meant for a
// worker thread.
base::SecretBytes derive_key(HashAlgorithm algorithm, std::span<const uint8_t> passphrase,
                             std::span<const uint8_t> salt, uint32_t iterations, size_t key_bytes);

// How many iterations derive such a key in a second of this thread's processor time: measured for
// as long as deriving one shall take, and for less than a tenth of a second. Meant for a worker
// thread.
uint64_t measure_iterations(HashAlgorithm algorithm, size_t key_bytes, uint64_t time_ms);

// From the system's generator for secrets.
void fill_random(std::span<uint8_t> bytes);

}  // namespace platter::crypto
