#include "virtio/guest_memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "base/math.h"
#include "base/try.h"

namespace platter::virtio {

Result<std::shared_ptr<const GuestMemory>> GuestMemory::make(std::vector<MemoryRegion> regions) {
  if (regions.size() > kMaxRegions) {
    return fail(EINVAL, fmt::format("{} regions of guest memory; at most {} are taken",
                                    regions.size(), kMaxRegions));
  }
  std::ranges::sort(regions, {}, &MemoryRegion::guest_address);
  uint64_t free_from = 0;
  for (const MemoryRegion& region : regions) {
    const auto end = base::checked_add(region.guest_address, region.bytes);
    if (region.bytes == 0 || !end) {
      return fail(EINVAL, fmt::format("A region of guest memory has {:#x} bytes at {:#x}",
                                      region.bytes, region.guest_address));
    }
    if (region.guest_address < free_from) {
      return fail(EINVAL, fmt::format("The region of guest memory at {:#x} overlaps another",
                                      region.guest_address));
    }
    free_from = *end;
  }
  return std::shared_ptr<const GuestMemory>(new GuestMemory(std::move(regions)));
}

const MemoryRegion* GuestMemory::find(uint64_t guest_address) const {
  auto after = std::ranges::upper_bound(regions_, guest_address, {}, &MemoryRegion::guest_address);
  if (after == regions_.begin()) return nullptr;
  const MemoryRegion& region = *--after;
  return guest_address - region.guest_address < region.bytes ? &region : nullptr;
}

uint8_t* GuestMemory::contiguous(uint64_t guest_address, uint64_t bytes) const {
  const MemoryRegion* region = find(guest_address);
  if (region == nullptr) return nullptr;
  const uint64_t offset = guest_address - region->guest_address;
  return bytes <= region->bytes - offset ? region->host + offset : nullptr;
}

bool GuestMemory::append(uint64_t guest_address, uint64_t bytes, size_t most,
                         std::vector<iovec>& pieces) const {
  while (bytes != 0) {
    const MemoryRegion* region = find(guest_address);
    if (region == nullptr || pieces.size() >= most) return false;
    const uint64_t offset = guest_address - region->guest_address;
    const uint64_t here = std::min(bytes, region->bytes - offset);
    pieces.push_back({.iov_base = region->host + offset, .iov_len = here});
    // No overflow: what is left begins where a region ends, and no region reaches the very end.
    guest_address += here;
    bytes -= here;
  }
  return true;
}

}  // namespace platter::virtio
