// GuestMemory: where the physical memory of a guest lies in this process.
//
// Immutable: a front-end that adds or takes away memory brings a new one, and the old one lives
// until the last request that points into it has ended (virtio/queue.h keeps it so long). The bytes
// are another's: they may change at any time under whoever reads them, so what is judged is copied
// first.
//
// Thread-safe.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "platter/error.h"

namespace platter::virtio {

struct MemoryRegion {
  uint64_t guest_address;
  uint64_t bytes;
  uint8_t* host;
  // Keeps `host` mapped.
  std::shared_ptr<const void> mapping;
};

class GuestMemory {
 public:
  // As many as a vhost-user front-end may have slots for.
  static constexpr size_t kMaxRegions = 512;

  // EINVAL: empty regions, too many, ones that overlap or reach past the end of the address space.
  static Result<std::shared_ptr<const GuestMemory>> make(std::vector<MemoryRegion> regions);

  // The host's address of the `bytes` at `guest_address`. Null: they are not all in one region.
  uint8_t* contiguous(uint64_t guest_address, uint64_t bytes) const;
  // Appends the pieces that the bytes lie in; neighbours in the guest may lie apart here. False:
  // some are nowhere, or it takes more than `most` pieces; then `pieces` ends anyhow.
  bool append(uint64_t guest_address, uint64_t bytes, size_t most,
              std::vector<iovec>& pieces) const;

 private:
  explicit GuestMemory(std::vector<MemoryRegion> regions) : regions_(std::move(regions)) {}
  const MemoryRegion* find(uint64_t guest_address) const;

  std::vector<MemoryRegion> regions_;  // by address, none overlaps another
};

}  // namespace platter::virtio
