// The anti-forensic splitter of LUKS (on-disk format specification 1.2, section 2.4): a key becomes
// `stripes` times its length, and is lost when any part of that is.
#pragma once

#include <cstdint>
#include <span>

#include "base/secret_bytes.h"
#include "crypto/algorithms.h"

namespace platter::crypto {

base::SecretBytes split_key(HashAlgorithm algorithm, std::span<const uint8_t> key,
                            uint32_t stripes);
// `material` has key_bytes for each stripe, of which there is at least one.
base::SecretBytes merge_key(HashAlgorithm algorithm, std::span<const uint8_t> material,
                            size_t key_bytes);

}  // namespace platter::crypto
