// OverlapMap: which clusters of the file hold what the image is made of, so that nothing is written
// there that does not belong there. An image whose counts or tables lie would otherwise have its
// own metadata overwritten by guest data.
//
// A cluster is known by the plane of what is in it, one bit each. The bits stand in a radix tree of
// which only what has bits exists; a question costs a few loads, however large the file.
//
// at() may be called by any thread at any time; everything else by one caller at a time. Memory is
// given back with the map.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>

namespace platter::format::qcow2 {

class OverlapMap {
 public:
  enum Plane : uint8_t {
    kActiveL2Tables = 1,
    kInactiveL2Tables = 2,
    kRefcountBlocks = 4,
    kTopLevel = 8,  // the header, the tables that it names, and the L1 tables of snapshots
  };

  explicit OverlapMap(unsigned cluster_bits) : cluster_bits_(cluster_bits) {}
  OverlapMap(const OverlapMap&) = delete;
  OverlapMap& operator=(const OverlapMap&) = delete;

  // Both: every cluster that the bytes touch. Offsets are below 2^56.
  void add(uint64_t offset, uint64_t bytes, Plane plane);
  void remove(uint64_t offset, uint64_t bytes);
  void clear();
  // The planes that any of the clusters which the bytes touch is in, or'ed together.
  uint8_t at(uint64_t offset, uint64_t bytes) const {
    if (bytes == 0) return 0;
    const uint64_t first = offset >> cluster_bits_;
    const uint64_t last = (offset + bytes - 1) >> cluster_bits_;
    uint8_t planes = 0;
    for (uint64_t word = first / kWordBits; word <= last / kWordBits; ++word) {
      const Leaf* leaf = find(word / kLeafWords);
      if (leaf == nullptr) continue;
      const uint64_t mask = mask_of(word, first, last);
      for (unsigned plane = 0; plane < kPlanes; ++plane) {
        const auto& bits = leaf->planes[plane][word % kLeafWords];
        if ((bits.load(std::memory_order_relaxed) & mask) != 0) planes |= uint8_t{1} << plane;
      }
    }
    return planes;
  }

 private:
  static constexpr unsigned kPlanes = 4;
  // An image may scatter what it claims over all offsets: what comes after this is not looked
  // after.
  static constexpr uint64_t kMaxMemoryBytes = uint64_t{128} << 20;
  static constexpr uint64_t kWordBits = 64;
  static constexpr uint64_t kLeafWords = 8;
  static constexpr unsigned kFanOutBits = 9;
  static constexpr uint64_t kFanOut = uint64_t{1} << kFanOutBits;

  struct Leaf {
    std::array<std::array<std::atomic<uint64_t>, kLeafWords>, kPlanes> planes = {};
  };
  struct Node {
    explicit Node(unsigned shift_) : shift(shift_) {}
    const unsigned shift;  // a child holds so many bits of a leaf's number; 0: it is the leaf
    std::array<std::atomic<void*>, kFanOut> children = {};
  };

  static uint64_t mask_of(uint64_t word, uint64_t first, uint64_t last) {
    const uint64_t low = word == first / kWordBits ? first % kWordBits : 0;
    const uint64_t high = word == last / kWordBits ? last % kWordBits : kWordBits - 1;
    return (~uint64_t{0} << low) & (~uint64_t{0} >> (kWordBits - 1 - high));
  }
  const Leaf* find(uint64_t number) const {
    const Node* node = root_.load(std::memory_order_acquire);
    if (node == nullptr || (number >> node->shift) >= kFanOut) return nullptr;
    for (;;) {
      const void* child =
          node->children[(number >> node->shift) % kFanOut].load(std::memory_order_acquire);
      if (child == nullptr || node->shift == 0) return static_cast<const Leaf*>(child);
      node = static_cast<const Node*>(child);
    }
  }
  // Null: the budget is spent.
  Leaf* make(uint64_t number);

  unsigned cluster_bits_;
  std::atomic<Node*> root_ = nullptr;
  std::deque<Node> nodes_;
  std::deque<Leaf> leaves_;
};

}  // namespace platter::format::qcow2
