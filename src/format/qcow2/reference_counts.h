// ReferenceCounts: one count for each cluster of a file, in as little memory as the counts need.
//
// Counts lie in chunks of kChunkClusters. A chunk takes no memory while its counts are zero and
// widens from one byte a count to 2, 4 and 8 as they grow. Chunks are small, and stand in a tree
// whose branches are not there while all of their counts are zero: few references scattered over a
// large sparse file cost little, and the rest of it, however vast, next to nothing. The whole is
// limited by a budget.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/assert.h"
#include "platter/error.h"

namespace platter::format::qcow2 {

class ReferenceCounts {
 public:
  static constexpr unsigned kChunkBits = 12;
  static constexpr uint64_t kChunkClusters = uint64_t{1} << kChunkBits;

  ReferenceCounts() = default;  // of no cluster
  // ENOMEM if `clusters` alone exceeds the budget.
  static Result<ReferenceCounts> create(uint64_t clusters, uint64_t max_memory_bytes);

  uint64_t clusters() const { return clusters_; }

  // `cluster` < clusters().
  uint64_t get(uint64_t cluster) const {
    const Chunk* chunk = find(cluster >> kChunkBits);
    if (chunk == nullptr) return 0;
    const uint64_t index = cluster & (kChunkClusters - 1);
    if (chunk->width == 1) [[likely]]
      return chunk->data[index];
    return get_wide(*chunk, index);
  }
  // False: the budget does not allow the memory that this needs; nothing is changed.
  [[nodiscard]] bool set(uint64_t cluster, uint64_t value) {
    PLATTER_ASSERT(cluster < clusters_);
    Chunk* chunk = find(cluster >> kChunkBits);
    if (chunk != nullptr && chunk->width == 1 && value <= UINT8_MAX) [[likely]] {
      chunk->data[cluster & (kChunkClusters - 1)] = static_cast<uint8_t>(value);
      return true;
    }
    return set_wide(cluster, value);
  }

  // Many at once, where that is fast: if all of [first, first + clusters) stand in one chunk, one
  // byte each, and are from `low` to `high`, adds `by` to each of them. False: nothing was changed.
  bool shift(uint64_t first, uint64_t clusters, uint8_t low, uint8_t high, int8_t by);
  // What they all are, if they stand so and are all the same.
  std::optional<uint8_t> common(uint64_t first, uint64_t clusters) const;
  // How many from `first` on are in its chunk.
  static uint64_t left_in_chunk(uint64_t first) {
    return kChunkClusters - (first & (kChunkClusters - 1));
  }

  // Calls fn(cluster) for every cluster whose count differs between `a` and `b` (of equal size), in
  // order. As fast as memory where they are equal. Stops when fn returns false.
  template <typename Fn>
  static void for_each_difference(const ReferenceCounts& a, const ReferenceCounts& b, Fn fn) {
    PLATTER_ASSERT(a.clusters_ == b.clusters_);
    for (uint64_t chunk = 0; chunk << kChunkBits < a.clusters_; ++chunk) {
      if (const uint64_t absent = std::min(a.absent_from(chunk), b.absent_from(chunk))) {
        chunk += absent - 1;
        continue;
      }
      if (same(a.find(chunk), b.find(chunk))) continue;
      const uint64_t end = std::min((chunk + 1) << kChunkBits, a.clusters_);
      for (uint64_t cluster = chunk << kChunkBits; cluster < end; ++cluster) {
        if (a.get(cluster) != b.get(cluster) && !fn(cluster)) return;
      }
    }
  }
  // The last cluster with a count, or -1.
  int64_t last_used() const;

 private:
  struct Chunk {
    std::unique_ptr<uint8_t[]> data;
    uint8_t width = 0;  // bytes of a count; 0: all are zero
  };
  static constexpr uint64_t kFanout = 512;
  using Group = std::array<Chunk, kFanout>;
  using Branch = std::array<std::unique_ptr<Group>, kFanout>;

  ReferenceCounts(uint64_t clusters, uint64_t budget);
  // Null: it is not there, and its counts are zero.
  Chunk* find(uint64_t chunk) const {
    const Branch* branch = branches_[chunk / (kFanout * kFanout)].get();
    if (branch == nullptr) return nullptr;
    Group* group = (*branch)[chunk / kFanout % kFanout].get();
    return group == nullptr ? nullptr : &(*group)[chunk % kFanout];
  }
  // How many chunks from this one on are not there, up to the end of the part of the tree that is
  // not; 0: it is.
  uint64_t absent_from(uint64_t chunk) const;
  // Null: they do not stand so.
  uint8_t* bytes_of(uint64_t first, uint64_t clusters) const;
  static uint64_t get_wide(const Chunk& chunk, uint64_t index);
  static bool same(const Chunk* a, const Chunk* b);
  static bool is_zero(const Chunk& chunk);
  bool set_wide(uint64_t cluster, uint64_t value);
  template <typename Part>
  bool grow(std::unique_ptr<Part>& part);
  bool widen(Chunk& chunk, uint8_t width);

  uint64_t clusters_ = 0;
  uint64_t budget_ = 0;
  std::vector<std::unique_ptr<Branch>> branches_;
};

}  // namespace platter::format::qcow2
