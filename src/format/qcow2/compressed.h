// Decompression of one cluster.
//
// A compressed cluster is a raw deflate stream or a zstd frame. Its length is known only to the
// sector, so whatever follows the stream's end is ignored; a stream that holds more than a cluster
// is cut. Specification: docs/format/qcow2.md, "Compressed clusters".
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "format/qcow2/header.h"
#include "platter/error.h"

namespace platter::format::qcow2 {

// Decompressors for reuse. Thread-safe: concurrent calls use one each, and as many as ran at the
// same time are kept.
class DecompressorPool {
 public:
  DecompressorPool();
  ~DecompressorPool();

  // Fills `out` (one cluster) from `in`. EIO if the data is not a valid stream or yields less.
  // Blocks for as long as the work takes: meant for a worker thread.
  Result<void> decompress(CompressionType type, std::span<const uint8_t> in,
                          std::span<uint8_t> out);

 private:
  class Decompressor;
  std::unique_ptr<Decompressor> take();

  std::mutex mutex_;
  std::vector<std::unique_ptr<Decompressor>> idle_;
};

}  // namespace platter::format::qcow2
