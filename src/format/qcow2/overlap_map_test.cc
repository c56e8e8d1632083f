#include "format/qcow2/overlap_map.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "format/qcow2/overlap_guard.h"

namespace platter::format::qcow2 {
namespace {

TEST(OverlapMap, KnowsNothingAtFirst) {
  OverlapMap map(16);
  EXPECT_EQ(map.at(0, UINT64_C(1) << 40), 0);
  EXPECT_EQ(map.at((UINT64_C(1) << 56) - 1, 1), 0);
  map.remove(0, UINT64_C(1) << 30);
  map.clear();
}

TEST(OverlapMap, KnowsEveryClusterThatTheBytesTouch) {
  OverlapMap map(12);
  map.add(4095, 2, OverlapMap::kRefcountBlocks);
  EXPECT_EQ(map.at(0, 1), OverlapMap::kRefcountBlocks);
  EXPECT_EQ(map.at(8191, 1), OverlapMap::kRefcountBlocks);
  EXPECT_EQ(map.at(8192, 4096), 0);
  EXPECT_EQ(map.at(8192, 0), 0);
  map.remove(0, 1);
  EXPECT_EQ(map.at(0, 4096), 0);
  EXPECT_EQ(map.at(0, 4097), OverlapMap::kRefcountBlocks);
}

// Random claims, near and at the far end of what offsets can be, against a map of clusters.
TEST(OverlapMap, SaysWhatASlowMapSays) {
  constexpr OverlapMap::Plane kPlanes[] = {OverlapMap::kActiveL2Tables,
                                           OverlapMap::kInactiveL2Tables,
                                           OverlapMap::kRefcountBlocks, OverlapMap::kTopLevel};
  for (const unsigned cluster_bits : {9u, 16u, 21u}) {
    OverlapMap map(cluster_bits);
    std::map<uint64_t, uint8_t> slow;
    std::mt19937_64 random(cluster_bits);
    const auto offset = [&] {
      constexpr uint64_t kBases[] = {0, UINT64_C(1) << 33, (UINT64_C(1) << 56) - (1 << 30)};
      return kBases[random() % 3] + random() % (uint64_t{800} << cluster_bits) % (1 << 29);
    };
    for (int step = 0; step < 20000; ++step) {
      const uint64_t at = offset();
      const uint64_t bytes = 1 + random() % (uint64_t{1} << (cluster_bits + random() % 8));
      const uint64_t first = at >> cluster_bits, last = (at + bytes - 1) >> cluster_bits;
      switch (random() % 3) {
        case 0: {
          const auto plane = kPlanes[random() % 4];
          map.add(at, bytes, plane);
          for (uint64_t cluster = first; cluster <= last; ++cluster) slow[cluster] |= plane;
          break;
        }
        case 1: {
          map.remove(at, bytes);
          slow.erase(slow.lower_bound(first), slow.upper_bound(last));
          break;
        }
        default: {
          uint8_t expected = 0;
          for (auto it = slow.lower_bound(first); it != slow.end() && it->first <= last; ++it)
            expected |= it->second;
          ASSERT_EQ(map.at(at, bytes), expected) << at << " " << bytes;
        }
      }
    }
    map.clear();
    EXPECT_EQ(map.at(0, uint64_t{1000} << cluster_bits), 0);
  }
}

// An image that names a table in every corner of the address space costs no more than so much.
TEST(OverlapMap, StaysWithinItsBudget) {
  OverlapMap map(9);
  std::mt19937_64 random(1);
  map.add(0, 512, OverlapMap::kTopLevel);
  uint64_t missed = 0;
  for (int i = 0; i < 200000; ++i) {
    const uint64_t offset = random() % (UINT64_C(1) << 56);
    map.add(offset, 512, OverlapMap::kActiveL2Tables);
    missed += map.at(offset, 1) == 0;
  }
  EXPECT_GT(missed, 0u);
  EXPECT_EQ(map.at(0, 1), OverlapMap::kTopLevel);
}

TEST(OverlapGuard, NamesWhatAWriteWouldDestroy) {
  OverlapGuard guard(16);
  guard.claim(kActiveL1, 0x30000, 100);  // not watched yet
  EXPECT_TRUE(guard.is_clear(0x30000, 512));
  guard.watch(kCachedStructures);
  guard.claim(kMainHeader, 0, 0x10000);
  guard.claim(kActiveL1, 0x30000, 100);
  guard.claim(kActiveL2, 0x40000, 0x10000);
  guard.claim(kRefcountBlock, 0x50000, 0x10000);
  guard.claim(kInactiveL2, 0x60000, 0x10000);
  EXPECT_FALSE(guard.is_clear(0x2ffff, 2));
  EXPECT_TRUE(guard.is_clear(0x60000, 0x10000));  // not among the cached ones
  EXPECT_EQ(guard.obstacle(0x8000, 512, 0), "qcow2_header");
  EXPECT_EQ(guard.obstacle(0x30010, 8, 0), "active L1 table");
  EXPECT_EQ(guard.obstacle(0x30200, 8, 0), "active L1 table");
  EXPECT_EQ(guard.obstacle(0x4fff8, 16, 0), "active L2 table");
  EXPECT_EQ(guard.obstacle(0x4fff8, 16, kActiveL2), "refcount block");
  EXPECT_EQ(guard.obstacle(0x40000, 0x10000, kActiveL2), "");
  EXPECT_EQ(guard.obstacle(0x30000, 8, kActiveL1), "");
  guard.forget(0x40000, 1);
  EXPECT_EQ(guard.obstacle(0x40000, 8, 0), "");
  guard.forget_all();
  EXPECT_TRUE(guard.is_clear(0, 0x100000));
}

}  // namespace
}  // namespace platter::format::qcow2
