// Chain: the memory of one request, as the driver put it into a virtqueue.
//
// A Chain is filled by Queue::pop() and goes back with Queue::push(). It can be used again: its
// storage stays, so that after a while nothing is allocated.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <span>
#include <vector>

#include "platter/error.h"
#include "virtio/guest_memory.h"

namespace platter::virtio {

// A descriptor (virtio 1.2, 2.7.5 and 2.8.10), copied out of the guest's memory once.
struct Descriptor {
  uint64_t address;
  uint32_t bytes;
  uint16_t flags;
  uint16_t link;  // the index of the next one; in a packed ring the id of the buffer
};
inline constexpr uint16_t kDescriptorNext = 1;
inline constexpr uint16_t kDescriptorWrite = 2;
inline constexpr uint16_t kDescriptorIndirect = 4;
inline constexpr size_t kDescriptorBytes = 16;

class Chain {
 public:
  // Pieces of one request at most, as the operating system takes them in one transfer.
  static constexpr size_t kMaxPieces = 1024;

  // What the driver filled, and what it wants filled. They may be empty; no piece is.
  std::span<const iovec> readable() const { return {pieces_.data(), readable_pieces_}; }
  std::span<const iovec> writable() const {
    return std::span<const iovec>(pieces_).subspan(readable_pieces_);
  }
  // What the driver wants filled, in the guest's own addresses.
  struct GuestRange {
    uint64_t address;
    uint32_t bytes;
  };
  std::span<const GuestRange> writable_ranges() const { return writable_ranges_; }
  uint64_t readable_bytes() const { return readable_bytes_; }
  uint64_t writable_bytes() const { return writable_bytes_; }

 private:
  friend class Queue;
  friend class SplitQueue;
  friend class PackedQueue;

  void begin();
  // EINVAL: the descriptor breaks a rule of the specification, or names memory that is not there.
  Result<void> add(const Descriptor& descriptor, const GuestMemory& memory);

  std::vector<iovec> pieces_;
  std::vector<GuestRange> writable_ranges_;
  size_t readable_pieces_ = 0;
  uint64_t readable_bytes_ = 0;
  uint64_t writable_bytes_ = 0;
  uint16_t id_ = 0;            // by which the driver knows it
  uint16_t slots_ = 0;         // entries of a packed ring that it takes; of a split one, 1
  uint16_t inflight_ = 0;      // its entry in the region that notes it (virtio/inflight.h)
  uint64_t sequence_ = 0;      // how many came before
  uint32_t* users_ = nullptr;  // of the memory that the pieces lie in; null: not out
};

}  // namespace platter::virtio
