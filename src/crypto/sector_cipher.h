// SectorCipher: what encrypts and decrypts the sectors of one volume.
//
// Every sector of kSectorBytes stands alone: its initialisation vector follows from its number.
// Any thread, at the same time as others, without a lock: each call takes one of the contexts that
// are idle, and makes another only where there is none.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>

#include "base/secret_bytes.h"
#include "crypto/algorithms.h"
#include "crypto/block_cipher.h"
#include "io/buffer.h"
#include "platter/error.h"

namespace platter::crypto {

inline constexpr uint64_t kSectorBytes = 512;

class SectorCipher {
 public:
  // `spec` was checked (check_spec); `key` has key_bytes(spec).
  static Result<std::unique_ptr<SectorCipher>> create(const CipherSpec& spec,
                                                      std::span<const uint8_t> key);
  ~SectorCipher();
  SectorCipher(const SectorCipher&) = delete;
  SectorCipher& operator=(const SectorCipher&) = delete;

  // Whole sectors, the first of which has the number `sector`. `from` is left as it is.
  void encrypt(uint64_t sector, const io::BufferList& from, std::span<uint8_t> to) const;
  void encrypt(uint64_t sector, std::span<uint8_t> in_place) const;
  void decrypt(uint64_t sector, const io::BufferList& in_place) const;

  const CipherSpec& spec() const { return spec_; }

 private:
  class Context;
  class Lease;
  static constexpr size_t kIdleContexts = 32;

  SectorCipher(const CipherSpec& spec, std::unique_ptr<Context> context);
  std::unique_ptr<Context> take() const;
  void give_back(std::unique_ptr<Context> context) const;

  CipherSpec spec_;
  std::unique_ptr<Context> original_;  // what others are copied from; used by none
  mutable std::array<std::atomic<Context*>, kIdleContexts> idle_{};
};

}  // namespace platter::crypto
