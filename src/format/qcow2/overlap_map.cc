#include "format/qcow2/overlap_map.h"

#include <bit>

namespace platter::format::qcow2 {

OverlapMap::Leaf* OverlapMap::make(uint64_t number) {
  if (nodes_.size() * sizeof(Node) + leaves_.size() * sizeof(Leaf) >= kMaxMemoryBytes)
    return const_cast<Leaf*>(find(number));
  Node* node = root_.load(std::memory_order_relaxed);
  while (node == nullptr || (number >> node->shift) >= kFanOut) {
    Node& above = nodes_.emplace_back(node == nullptr ? 0 : node->shift + kFanOutBits);
    above.children[0].store(node, std::memory_order_relaxed);
    node = &above;
    root_.store(node, std::memory_order_release);
  }
  for (;;) {
    std::atomic<void*>& child = node->children[(number >> node->shift) % kFanOut];
    void* below = child.load(std::memory_order_relaxed);
    if (below == nullptr) {
      below = node->shift == 0 ? static_cast<void*>(&leaves_.emplace_back())
                               : &nodes_.emplace_back(node->shift - kFanOutBits);
      child.store(below, std::memory_order_release);
    }
    if (node->shift == 0) return static_cast<Leaf*>(below);
    node = static_cast<Node*>(below);
  }
}

void OverlapMap::add(uint64_t offset, uint64_t bytes, Plane plane) {
  if (bytes == 0) return;
  const uint64_t first = offset >> cluster_bits_;
  const uint64_t last = (offset + bytes - 1) >> cluster_bits_;
  const unsigned index = static_cast<unsigned>(std::countr_zero(static_cast<uint8_t>(plane)));
  for (uint64_t word = first / kWordBits; word <= last / kWordBits; ++word) {
    Leaf* leaf = make(word / kLeafWords);
    if (leaf == nullptr) return;
    leaf->planes[index][word % kLeafWords].fetch_or(mask_of(word, first, last),
                                                    std::memory_order_relaxed);
  }
}

void OverlapMap::remove(uint64_t offset, uint64_t bytes) {
  if (bytes == 0) return;
  const uint64_t first = offset >> cluster_bits_;
  const uint64_t last = (offset + bytes - 1) >> cluster_bits_;
  for (uint64_t word = first / kWordBits; word <= last / kWordBits; ++word) {
    auto* leaf = const_cast<Leaf*>(find(word / kLeafWords));
    if (leaf == nullptr) continue;
    const uint64_t mask = mask_of(word, first, last);
    for (auto& plane : leaf->planes)
      plane[word % kLeafWords].fetch_and(~mask, std::memory_order_relaxed);
  }
}

void OverlapMap::clear() {
  for (Leaf& leaf : leaves_) {
    for (auto& plane : leaf.planes) {
      for (auto& word : plane) word.store(0, std::memory_order_relaxed);
    }
  }
}

}  // namespace platter::format::qcow2
