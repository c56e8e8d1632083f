// BlockCipher: one cipher in one mode under one key, as a library implements it.
//
// One thread at a time uses an instance; clone() makes another for another thread. What it holds of
// the key is overwritten when it goes.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "crypto/algorithms.h"
#include "platter/error.h"

namespace platter::crypto {

class BlockCipher {
 public:
  virtual ~BlockCipher() = default;
  virtual std::unique_ptr<BlockCipher> clone() const = 0;
  // `length` is a multiple of the block and at most kMaxDataUnit; `in` and `out` are the same or do
  // not overlap. `iv` has the length of a block (no matter with ECB).
  virtual void encrypt(const uint8_t* iv, const uint8_t* in, uint8_t* out, size_t length) = 0;
  virtual void decrypt(const uint8_t* iv, const uint8_t* in, uint8_t* out, size_t length) = 0;
};

// `key` has cipher_key_bytes(algorithm), twice that with XTS. EINVAL: the key is refused (XTS with
// equal halves).
Result<std::unique_ptr<BlockCipher>> make_block_cipher(CipherAlgorithm algorithm, CipherMode mode,
                                                       std::span<const uint8_t> key);

}  // namespace platter::crypto
