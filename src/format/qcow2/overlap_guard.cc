#include "format/qcow2/overlap_guard.h"

#include <bit>
#include <iterator>

#include "base/assert.h"
#include "base/math.h"

namespace platter::format::qcow2 {
namespace {

// By the position of their bits.
constexpr std::string_view kNames[] = {
    "qcow2_header",   "active L1 table",   "active L2 table",   "refcount table",  "refcount block",
    "snapshot table", "inactive L1 table", "inactive L2 table", "bitmap directory"};

std::string_view name_of(Structure structure) {
  return kNames[std::countr_zero(static_cast<uint16_t>(structure))];
}

OverlapMap::Plane plane_of(Structure structure) {
  switch (structure) {
    case kActiveL2: return OverlapMap::kActiveL2Tables;
    case kInactiveL2: return OverlapMap::kInactiveL2Tables;
    case kRefcountBlock: return OverlapMap::kRefcountBlocks;
    default: return OverlapMap::kTopLevel;
  }
}

// The planes that a write of `own` may meet. An L2 table is written where it was when it became a
// snapshot's too.
uint8_t planes_of(Structures own) {
  uint8_t planes = 0;
  for (unsigned bit = 0; bit < std::size(kNames); ++bit) {
    const auto structure = static_cast<Structure>(1 << bit);
    if ((own & structure) != 0) planes |= plane_of(structure);
  }
  return planes;
}

}  // namespace

void OverlapGuard::claim(Structure structure, uint64_t offset, uint64_t bytes) {
  if (!watches(structure) || bytes == 0) return;
  const OverlapMap::Plane plane = plane_of(structure);
  map_.add(offset, bytes, plane);
  if (plane == OverlapMap::kTopLevel) top_level_.push_back({structure, offset, bytes});
}

void OverlapGuard::forget_all() {
  map_.clear();
  top_level_.clear();
}

std::string_view OverlapGuard::obstacle(uint64_t offset, uint64_t bytes, Structures own) const {
  const uint8_t met = map_.at(offset, bytes) & static_cast<uint8_t>(~planes_of(own));
  if (met == 0) return {};
  if ((met & OverlapMap::kTopLevel) != 0) {
    for (auto range = top_level_.rbegin(); range != top_level_.rend(); ++range) {
      const uint64_t first = base::align_down(range->offset, cluster_size_);
      const uint64_t end = base::align_up(range->offset + range->bytes, cluster_size_);
      if (offset < end && first < offset + bytes) return name_of(range->structure);
    }
    PLATTER_ASSERT(false);  // it was claimed
  }
  if ((met & OverlapMap::kActiveL2Tables) != 0) return name_of(kActiveL2);
  if ((met & OverlapMap::kRefcountBlocks) != 0) return name_of(kRefcountBlock);
  return name_of(kInactiveL2);
}

}  // namespace platter::format::qcow2
