// OverlapGuard: what is known of where the parts of an image are, and whether a write would destroy
// one that it does not mean. The options overlap-check* say which parts are looked after.
//
// Where a part comes to be is claimed before it is used; what has lost its last reference is
// forgotten. A snapshot's tables may count as active ones until the image is opened anew: they are
// looked after all the same.
//
// is_clear() from any thread; the rest under the allocation mutex.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "format/qcow2/overlap_map.h"

namespace platter::format::qcow2 {

// The parts, as the options name them.
enum Structure : uint16_t {
  kMainHeader = 1 << 0,
  kActiveL1 = 1 << 1,
  kActiveL2 = 1 << 2,
  kRefcountTable = 1 << 3,
  kRefcountBlock = 1 << 4,
  kSnapshotTable = 1 << 5,
  kInactiveL1 = 1 << 6,
  kInactiveL2 = 1 << 7,
  kBitmapDirectory = 1 << 8,
};
using Structures = uint16_t;

inline constexpr Structures kConstantStructures =
    kMainHeader | kActiveL1 | kRefcountTable | kSnapshotTable | kBitmapDirectory;
inline constexpr Structures kCachedStructures =
    kConstantStructures | kActiveL2 | kRefcountBlock | kInactiveL1;
inline constexpr Structures kAllStructures = kCachedStructures | kInactiveL2;

class OverlapGuard {
 public:
  explicit OverlapGuard(unsigned cluster_bits)
      : cluster_size_(uint64_t{1} << cluster_bits), map_(cluster_bits) {}

  // Which parts are looked after; none before. Claims of others are nothing.
  void watch(Structures structures) { watched_ = structures; }
  bool watches(Structure structure) const { return (watched_ & structure) != 0; }

  void claim(Structure structure, uint64_t offset, uint64_t bytes);
  void forget(uint64_t offset, uint64_t bytes) { map_.remove(offset, bytes); }
  void forget_all();

  // Whether guest data may be written there.
  bool is_clear(uint64_t offset, uint64_t bytes) const { return map_.at(offset, bytes) == 0; }
  // What a write of a part would destroy besides its like, as a message has it; empty: nothing.
  // `own` is none of those above: guest data.
  std::string_view obstacle(uint64_t offset, uint64_t bytes, Structures own) const;

 private:
  struct Range {
    Structure structure;
    uint64_t offset;
    uint64_t bytes;
  };

  uint64_t cluster_size_;
  Structures watched_ = 0;
  OverlapMap map_;
  std::vector<Range> top_level_;  // the latest last
};

}  // namespace platter::format::qcow2
