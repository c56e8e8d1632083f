// Source: the bytes of an untrusted image, read by offset, within a budget.
//
// Whatever an image claims about itself, one inspection reads at most kMaxReads pieces and
// kMaxReadBytes bytes: a parser that is led in circles runs out instead of running on.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "platter/error.h"

namespace platter::inspect {

class Source {
 public:
  static constexpr uint64_t kMaxReadBytes = uint64_t{16} << 20;
  static constexpr unsigned kMaxReads = 4096;

  explicit Source(uint64_t size) : size_(size) {}
  virtual ~Source() = default;

  uint64_t size() const { return size_; }

  // Exactly `length` bytes; what lies past the end of the file is zero. EFBIG: the budget is spent.
  Result<std::vector<uint8_t>> read(uint64_t offset, uint64_t length);

 protected:
  // `into` lies within the file.
  virtual Result<void> read_at(uint64_t offset, std::span<uint8_t> into) = 0;

 private:
  const uint64_t size_;
  uint64_t bytes_left_ = kMaxReadBytes;
  unsigned reads_left_ = kMaxReads;
};

// By pread(2), of a descriptor that outlives it.
class FileSource : public Source {
 public:
  FileSource(int descriptor, uint64_t size) : Source(size), descriptor_(descriptor) {}

 protected:
  Result<void> read_at(uint64_t offset, std::span<uint8_t> into) override;

 private:
  const int descriptor_;
};

}  // namespace platter::inspect
