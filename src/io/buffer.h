// BufferList: the memory of one request, as a window over one piece or over an iovec array.
//
// It is a view: whoever made the request owns the memory and the iovec array, and keeps both
// until the request has completed. Copying a BufferList copies the view. Reads fill it, writes
// take from it; like iovec it does not tell the two apart in its type.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/assert.h"

namespace platter::io {

class BufferList {
 public:
  BufferList() = default;
  BufferList(uint8_t* data, size_t size) : base_(data), size_(size) {}
  explicit BufferList(std::span<uint8_t> bytes) : BufferList(bytes.data(), bytes.size()) {}
  // All bytes of `pieces`.
  explicit BufferList(std::span<const iovec> pieces);

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

  // The window [offset, offset + size) of this one. O(pieces skipped).
  BufferList sub(size_t offset, size_t size) const;

  // Null unless the window is one contiguous piece.
  uint8_t* contiguous() const;

  // Calls fn(std::span<uint8_t>) for each non-empty piece, in order.
  template <typename Fn>
  void for_each(Fn fn) const {
    if (pieces_ == nullptr) {
      if (size_ != 0) fn(std::span<uint8_t>(base_, size_));
      return;
    }
    size_t skip = skip_;
    size_t left = size_;
    for (const iovec* piece = pieces_; left != 0; ++piece) {
      size_t length = piece->iov_len - skip;
      if (length > left) length = left;
      if (length != 0)
        fn(std::span<uint8_t>(static_cast<uint8_t*>(piece->iov_base) + skip, length));
      left -= length;
      skip = 0;
    }
  }
  size_t piece_count() const;
  // Writes the window as iovecs; returns how many, at most out.size(). What does not fit is left
  // out: compare with piece_count().
  size_t fill(std::span<iovec> out) const;
  // The caller's own iovec array, if the window is made of whole pieces of it; else nothing.
  std::span<const iovec> whole_pieces() const;

  void copy_from(std::span<const uint8_t> source) const;  // source.size() == size()
  void copy_to(std::span<uint8_t> target) const;          // target.size() == size()
  void fill_zero() const;
  bool is_zero() const;
  // Whether every piece's address and length is a multiple of `alignment`.
  bool is_aligned(size_t alignment) const;

 private:
  const iovec* pieces_ = nullptr;  // null: contiguous at base_
  uint8_t* base_ = nullptr;
  size_t skip_ = 0;  // into pieces_[0]
  size_t size_ = 0;
};

// Owned, aligned memory for I/O.
class AlignedBuffer {
 public:
  static constexpr size_t kAlignment = 4096;
  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t size);  // contents undefined

  uint8_t* data() const { return data_.get(); }
  size_t size() const { return size_; }
  std::span<uint8_t> span() const { return {data(), size_}; }
  BufferList view() const { return {data(), size_}; }
  BufferList view(size_t offset, size_t size) const {
    PLATTER_ASSERT(offset <= size_ && size <= size_ - offset);
    return {data() + offset, size};
  }

 private:
  struct Free {
    void operator()(uint8_t* data) const;
  };
  std::unique_ptr<uint8_t, Free> data_;
  size_t size_ = 0;
};

}  // namespace platter::io
