#include "virtio/chain.h"

#include <fmt/format.h>

#include <cerrno>

#include "base/try.h"

namespace platter::virtio {

void Chain::begin() {
  pieces_.clear();
  writable_ranges_.clear();
  readable_pieces_ = 0;
  readable_bytes_ = 0;
  writable_bytes_ = 0;
}

Result<void> Chain::add(const Descriptor& descriptor, const GuestMemory& memory) {
  const bool write = (descriptor.flags & kDescriptorWrite) != 0;
  if (descriptor.bytes == 0) return fail(EINVAL, "A descriptor is of zero bytes");
  if (!write && pieces_.size() != readable_pieces_)
    return fail(EINVAL, "A descriptor that the device reads follows one that it writes");
  if (!memory.append(descriptor.address, descriptor.bytes, kMaxPieces, pieces_)) {
    return fail(EINVAL, pieces_.size() >= kMaxPieces
                            ? fmt::format("A request has more than {} pieces", kMaxPieces)
                            : fmt::format("A descriptor names {} bytes at {:#x}, which is not all "
                                          "memory of the guest",
                                          descriptor.bytes, descriptor.address));
  }
  // At most 1024 descriptors of 32 bits each come here: no sum overflows.
  (write ? writable_bytes_ : readable_bytes_) += descriptor.bytes;
  if (write) {
    writable_ranges_.push_back({.address = descriptor.address, .bytes = descriptor.bytes});
  } else {
    readable_pieces_ = pieces_.size();
  }
  return {};
}

}  // namespace platter::virtio
