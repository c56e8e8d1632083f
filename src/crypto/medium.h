// Medium: the bytes on which something encrypted lies, as this room sees them.
#pragma once

#include <cstdint>

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

// Over a block::Child or block::Backend, from `base` on.
template <typename File>
class MediumOver final : public Medium {
 public:
  explicit MediumOver(File& file, uint64_t base = 0) : file_(file), base_(base) {}
  io::Task<Result<void>> read(uint64_t offset, io::BufferList buffers) override {
    return file_.read(base_ + offset, buffers);
  }
  io::Task<Result<void>> write(uint64_t offset, io::BufferList buffers) override {
    return file_.write(base_ + offset, buffers);
  }
  io::Task<Result<void>> flush() override { return file_.flush(); }

 private:
  File& file_;
  uint64_t base_;
};

}  // namespace platter::crypto
