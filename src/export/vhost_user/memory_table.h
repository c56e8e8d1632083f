// MemoryTable: the guest's memory as a front-end shares it: regions that come and go, each with an
// address in the guest and one in the front-end, which is how it names rings.
//
// For one reactor; what memory() gives is for all (virtio/guest_memory.h).
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "export/vhost_user/message.h"
#include "virtio/guest_memory.h"

namespace platter::vhost_user {

class MemoryTable {
 public:
  // All regions at once. EINVAL: not one descriptor for each; regions that cannot be.
  Result<void> replace(const std::vector<RegionDescription>& regions,
                       const std::vector<io::Descriptor>& descriptors);
  Result<void> add(const RegionDescription& region, const io::Descriptor& descriptor);
  // The one with these addresses and this length. EINVAL: there is none.
  Result<void> remove(const RegionDescription& region);
  void clear();

  // Never null; empty at first.
  const std::shared_ptr<const virtio::GuestMemory>& memory() const { return memory_; }
  std::optional<uint64_t> guest_address(uint64_t user_address) const;

 private:
  struct Region {
    RegionDescription description;
    std::shared_ptr<const void> mapping;
    uint8_t* host;
  };
  static Result<Region> map(const RegionDescription& region, const io::Descriptor& descriptor);
  // Takes the regions over if they can be.
  Result<void> become(std::vector<Region> regions);

  std::vector<Region> regions_;
  std::shared_ptr<const virtio::GuestMemory> memory_ = *virtio::GuestMemory::make({});
};

}  // namespace platter::vhost_user
