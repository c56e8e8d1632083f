// Intake: what comes over a stream, many messages a receive, and large payloads straight to where
// they are to be.
#pragma once

#include <array>
#include <span>

#include "io/buffer.h"
#include "io/stream.h"
#include "io/task.h"

namespace platter::nbd {

class Intake {
 public:
  static constexpr size_t kBytes = size_t{64} << 10;

  // Which outlives it.
  explicit Intake(io::Stream& stream) : stream_(stream), buffer_(kBytes) {}

  // `count`, at most kBytes, are there without waiting.
  bool has(size_t count) const { return end_ - begin_ >= count; }
  // Waits until they are. False: the peer has ended, with nothing left. EPROTO: with something.
  io::Task<Result<bool>> wait_for(size_t count);
  // What is there already; they are taken.
  std::span<const uint8_t> take(size_t count);
  // Fills all of `bytes`. EPROTO: the peer has ended.
  io::Task<Result<void>> fill(std::span<uint8_t> bytes);
  io::Task<Result<void>> skip(uint64_t count);

 private:
  size_t take_some(std::span<uint8_t> bytes);

  io::Stream& stream_;
  io::AlignedBuffer buffer_;
  size_t begin_ = 0, end_ = 0;
  std::array<iovec, 2> pieces_{};
};

}  // namespace platter::nbd
