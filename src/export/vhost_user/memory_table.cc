#include "export/vhost_user/memory_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "base/math.h"
#include "base/try.h"
#include "io/shared_mapping.h"

namespace platter::vhost_user {

Result<MemoryTable::Region> MemoryTable::map(const RegionDescription& region,
                                             const io::Descriptor& descriptor) {
  if (!base::checked_add(region.user_address, region.bytes))
    return fail(EINVAL, "a region that reaches past the end of the front-end's memory");
  PLATTER_ASSIGN(auto mapping,
                 io::SharedMapping::map(descriptor.get(), region.file_offset, region.bytes));
  uint8_t* host = mapping->data();
  return Region{.description = region, .mapping = std::move(mapping), .host = host};
}

Result<void> MemoryTable::become(std::vector<Region> regions) {
  std::vector<virtio::MemoryRegion> memory;
  for (const Region& region : regions) {
    memory.push_back({.guest_address = region.description.guest_address,
                      .bytes = region.description.bytes,
                      .host = region.host,
                      .mapping = region.mapping});
  }
  PLATTER_ASSIGN(memory_, virtio::GuestMemory::make(std::move(memory)));
  regions_ = std::move(regions);
  return {};
}

Result<void> MemoryTable::replace(const std::vector<RegionDescription>& regions,
                                  const std::vector<io::Descriptor>& descriptors) {
  if (regions.size() != descriptors.size()) {
    return fail(EINVAL, fmt::format("{} regions of memory with {} descriptors", regions.size(),
                                    descriptors.size()));
  }
  std::vector<Region> mapped;
  for (size_t i = 0; i < regions.size(); ++i) {
    PLATTER_ASSIGN(auto region, map(regions[i], descriptors[i]));
    mapped.push_back(std::move(region));
  }
  return become(std::move(mapped));
}

Result<void> MemoryTable::add(const RegionDescription& region, const io::Descriptor& descriptor) {
  PLATTER_ASSIGN(auto mapped, map(region, descriptor));
  auto regions = regions_;
  regions.push_back(std::move(mapped));
  return become(std::move(regions));
}

Result<void> MemoryTable::remove(const RegionDescription& region) {
  auto regions = regions_;
  const auto removed = std::erase_if(regions, [&](const Region& each) {
    return each.description.guest_address == region.guest_address &&
           each.description.user_address == region.user_address &&
           each.description.bytes == region.bytes;
  });
  if (removed == 0) {
    return fail(EINVAL, fmt::format("no region of {:#x} bytes at {:#x} is there", region.bytes,
                                    region.guest_address));
  }
  return become(std::move(regions));
}

void MemoryTable::clear() {
  regions_.clear();
  memory_ = *virtio::GuestMemory::make({});
}

std::optional<uint64_t> MemoryTable::guest_address(uint64_t user_address) const {
  for (const Region& region : regions_) {
    const RegionDescription& each = region.description;
    if (user_address >= each.user_address && user_address - each.user_address < each.bytes)
      return each.guest_address + (user_address - each.user_address);
  }
  return std::nullopt;
}

}  // namespace platter::vhost_user
