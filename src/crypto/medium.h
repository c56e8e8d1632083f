// Medium: the bytes on which something encrypted lies, as this room sees them.
#pragma once

#include <cerrno>
#include <cstdint>

#include "base/math.h"
#include "base/try.h"
#include "io/buffer.h"
#include "io/task.h"
#include "platter/error.h"

namespace platter::crypto {

class Medium {
 public:
  virtual ~Medium() = default;
  virtual io::Task<Result<void>> read(uint64_t offset, io::BufferList buffers) = 0;
  virtual io::Task<Result<void>> write(uint64_t offset, io::BufferList buffers) = 0;
  virtual io::Task<Result<void>> flush() = 0;
};

// Over a block::Child or block::Backend: `length` bytes from `base` on.
template <typename File>
class MediumOver final : public Medium {
 public:
  explicit MediumOver(File& file, uint64_t base = 0, uint64_t length = INT64_MAX)
      : file_(file), base_(base), length_(length) {}
  io::Task<Result<void>> read(uint64_t offset, io::BufferList buffers) override {
    if (!base::range_within(offset, buffers.size(), length_)) return outside();
    return file_.read(base_ + offset, buffers);
  }
  io::Task<Result<void>> write(uint64_t offset, io::BufferList buffers) override {
    if (!base::range_within(offset, buffers.size(), length_)) return outside();
    return file_.write(base_ + offset, buffers);
  }
  io::Task<Result<void>> flush() override { return file_.flush(); }

 private:
  static io::Task<Result<void>> outside() {
    return io::Task<Result<void>>::ready(
        fail(EINVAL, "A part of the encryption header lies outside of it"));
  }

  File& file_;
  uint64_t base_;
  uint64_t length_;
};

}  // namespace platter::crypto
