// RingBuffer: what was written last, up to a fixed number of bytes; the oldest are lost first.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace platter::monitor {

class RingBuffer {
 public:
  // A power of two.
  explicit RingBuffer(size_t bytes) : bytes_(bytes) {}

  void write(std::span<const uint8_t> data) {
    for (const uint8_t byte : data) bytes_[written_++ & (bytes_.size() - 1)] = byte;
    if (written_ - read_ > bytes_.size()) read_ = written_ - bytes_.size();
  }
  // Takes out the oldest ones, at most so many.
  std::string read(uint64_t most) {
    std::string taken;
    for (; read_ != written_ && taken.size() < most; ++read_)
      taken += static_cast<char>(bytes_[read_ & (bytes_.size() - 1)]);
    return taken;
  }

 private:
  std::vector<uint8_t> bytes_;
  uint64_t written_ = 0, read_ = 0;
};

}  // namespace platter::monitor
