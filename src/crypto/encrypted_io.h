// Reading and writing what is encrypted on its medium.
//
// A small request is encrypted or decrypted where it runs; a larger one in windows on the worker
// threads, some of them at the same time as others are on their way to or from the medium. What a
// write takes from is left as it is.
#pragma once

#include <cstdint>

#include "crypto/medium.h"
#include "crypto/sector_cipher.h"
#include "io/buffer.h"
#include "io/task.h"
#include "platter/error.h"

namespace platter::crypto {

// Memory that ciphertext is put into on its way, for reuse. Any thread, without a lock.
class BouncePool {
 public:
  BouncePool() = default;
  ~BouncePool();
  BouncePool(const BouncePool&) = delete;
  BouncePool& operator=(const BouncePool&) = delete;

  // Of kInlineBytes or kWindowBytes, whichever is enough; at most kWindowBytes are asked for.
  class Lease;

 private:
  static constexpr size_t kIdle = 16;  // of each size
  struct Places {
    std::atomic<uint8_t*> idle[kIdle] = {};
  };
  Places small_;
  Places large_;
};

// What is cheaper to do at once than to hand to another thread.
inline constexpr uint64_t kInlineBytes = uint64_t{64} << 10;
inline constexpr uint64_t kWindowBytes = uint64_t{512} << 10;

// One encrypted volume at work. Holds no state of a request.
class EncryptedIo {
 public:
  explicit EncryptedIo(const SectorCipher& cipher) : cipher_(cipher) {}

  // Whole sectors at `offset` of `medium`, the first of which has the number `sector`. `medium`
  // outlives the task.
  io::Task<Result<void>> read(Medium& medium, uint64_t offset, uint64_t sector,
                              io::BufferList buffers);
  io::Task<Result<void>> write(Medium& medium, uint64_t offset, uint64_t sector,
                               io::BufferList buffers);

  const SectorCipher& cipher() const { return cipher_; }

 private:
  io::Task<Result<void>> read_window(Medium& medium, uint64_t offset, uint64_t sector,
                                     io::BufferList buffers);
  io::Task<Result<void>> write_window(Medium& medium, uint64_t offset, uint64_t sector,
                                      io::BufferList buffers);

  const SectorCipher& cipher_;
  BouncePool bounce_;
};

}  // namespace platter::crypto
