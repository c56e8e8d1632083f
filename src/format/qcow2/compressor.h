// Compression of one cluster, to what every reader of the format takes.
//
// Deflate streams keep their distances within 4 KiB: other readers' windows are no larger.
// Specification: docs/format/qcow2.md, "Compressed clusters".
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "format/qcow2/header.h"
#include "io/buffer.h"

namespace platter::format::qcow2 {

// Compressors and the memory that streams are gathered in, for reuse. Thread-safe: concurrent calls
// use one each, and as many as ran at the same time are kept.
class CompressorPool {
 public:
  CompressorPool();
  ~CompressorPool();

  // The length of the stream that `in` became in `out`; 0 if it does not fit. Blocks for as long as
  // the work takes: meant for a worker thread.
  size_t compress(CompressionType type, std::span<const uint8_t> in, std::span<uint8_t> out);

  // At least `bytes` of memory, and where it goes when it is no longer used.
  io::AlignedBuffer take_buffer(size_t bytes);
  void return_buffer(io::AlignedBuffer buffer);

 private:
  class Compressor;
  static constexpr size_t kMaxIdleBuffers = 16;
  std::unique_ptr<Compressor> take();

  std::mutex mutex_;
  std::vector<std::unique_ptr<Compressor>> idle_;
  std::vector<io::AlignedBuffer> idle_buffers_;
};

}  // namespace platter::format::qcow2
