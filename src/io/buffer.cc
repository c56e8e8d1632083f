#include "io/buffer.h"

#include <cstring>
#include <new>

#include "base/bytes.h"

namespace platter::io {

BufferList::BufferList(std::span<const iovec> pieces) : pieces_(pieces.data()) {
  for (const iovec& piece : pieces) size_ += piece.iov_len;
  if (pieces.size() == 1) {
    base_ = static_cast<uint8_t*>(pieces[0].iov_base);
    pieces_ = nullptr;
  }
}

BufferList BufferList::sub(size_t offset, size_t size) const {
  PLATTER_ASSERT(offset <= size_ && size <= size_ - offset);
  if (pieces_ == nullptr) return {base_ == nullptr ? nullptr : base_ + offset, size};
  BufferList window;
  window.pieces_ = pieces_;
  window.skip_ = skip_ + offset;
  window.size_ = size;
  if (size == 0) return {};
  while (window.skip_ >= window.pieces_->iov_len) window.skip_ -= (window.pieces_++)->iov_len;
  if (size <= window.pieces_->iov_len - window.skip_) {
    return {static_cast<uint8_t*>(window.pieces_->iov_base) + window.skip_, size};
  }
  return window;
}

uint8_t* BufferList::contiguous() const {
  if (pieces_ == nullptr) return base_;
  uint8_t* found = nullptr;
  size_t count = 0;
  for_each([&](std::span<uint8_t> piece) {
    if (count++ == 0) found = piece.data();
  });
  return count == 1 ? found : nullptr;
}

size_t BufferList::piece_count() const {
  size_t count = 0;
  for_each([&](std::span<uint8_t>) { ++count; });
  return count;
}

size_t BufferList::fill(std::span<iovec> out) const {
  size_t count = 0;
  size_t left = size_;
  size_t skip = skip_;
  if (pieces_ == nullptr) {
    if (size_ != 0 && !out.empty()) out[count++] = {base_, size_};
    return count;
  }
  for (const iovec* piece = pieces_; left != 0 && count < out.size(); ++piece) {
    size_t length = piece->iov_len - skip < left ? piece->iov_len - skip : left;
    if (length != 0) out[count++] = {static_cast<uint8_t*>(piece->iov_base) + skip, length};
    left -= length;
    skip = 0;
  }
  return count;
}

std::span<const iovec> BufferList::whole_pieces() const {
  if (pieces_ == nullptr || skip_ != 0) return {};
  size_t left = size_;
  const iovec* piece = pieces_;
  for (; left != 0; ++piece) {
    if (piece->iov_len > left) return {};
    left -= piece->iov_len;
  }
  return {pieces_, piece};
}

void BufferList::copy_from(std::span<const uint8_t> source) const {
  PLATTER_ASSERT(source.size() == size_);
  const uint8_t* from = source.data();
  for_each([&](std::span<uint8_t> piece) {
    std::memcpy(piece.data(), from, piece.size());
    from += piece.size();
  });
}

void BufferList::copy_to(std::span<uint8_t> target) const {
  PLATTER_ASSERT(target.size() == size_);
  uint8_t* to = target.data();
  for_each([&](std::span<uint8_t> piece) {
    std::memcpy(to, piece.data(), piece.size());
    to += piece.size();
  });
}

void BufferList::fill_zero() const {
  for_each([](std::span<uint8_t> piece) { std::memset(piece.data(), 0, piece.size()); });
}

bool BufferList::is_zero() const {
  bool zero = true;
  for_each([&](std::span<uint8_t> piece) { zero = zero && base::is_zero(piece); });
  return zero;
}

bool BufferList::is_aligned(size_t alignment) const {
  if (alignment <= 1) return true;
  bool aligned = true;
  for_each([&](std::span<uint8_t> piece) {
    auto address = reinterpret_cast<uintptr_t>(piece.data());
    aligned = aligned && ((address | piece.size()) & (alignment - 1)) == 0;
  });
  return aligned;
}

AlignedBuffer::AlignedBuffer(size_t size)
    : data_(static_cast<uint8_t*>(::operator new(size, std::align_val_t{kAlignment}))),
      size_(size) {}

void AlignedBuffer::Free::operator()(uint8_t* data) const {
  ::operator delete(data, std::align_val_t{kAlignment});
}

}  // namespace platter::io
