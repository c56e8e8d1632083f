#include "format/qcow2/reference_counts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <random>
#include <vector>

namespace platter::format::qcow2 {
namespace {

constexpr uint64_t kMiB = 1 << 20;

TEST(ReferenceCounts, WidensWithItsCounts) {
  auto counts = ReferenceCounts::create(100000, 4 * kMiB);
  ASSERT_TRUE(counts.has_value());
  ASSERT_TRUE(counts->set(5, 1));
  ASSERT_TRUE(counts->set(70000, 255));
  for (const uint64_t value : {uint64_t{256}, uint64_t{70000}, UINT64_MAX}) {
    ASSERT_TRUE(counts->set(5, value));
    EXPECT_EQ(counts->get(5), value);
    EXPECT_EQ(counts->get(6), 0u);
    EXPECT_EQ(counts->get(70000), 255u);
  }
  EXPECT_EQ(counts->last_used(), 70000);
}

TEST(ReferenceCounts, StaysWithinItsBudget) {
  EXPECT_EQ(ReferenceCounts::create(uint64_t{1} << 40, kMiB).error().code(), ENOMEM);
  constexpr uint64_t kChunk = ReferenceCounts::kChunkClusters;
  auto counts = ReferenceCounts::create(10 * kChunk, kChunk * 9 / 2);
  ASSERT_TRUE(counts.has_value());
  EXPECT_TRUE(counts->set(0, 1));
  EXPECT_FALSE(counts->set(kChunk, 1));
  EXPECT_EQ(counts->get(kChunk), 0u);
  EXPECT_FALSE(counts->set(0, 300));
  EXPECT_EQ(counts->get(0), 1u);
}

TEST(ReferenceCounts, AVastSparseFileCostsLittle) {
  constexpr uint64_t kClusters = uint64_t{1} << 38;
  auto counts = ReferenceCounts::create(kClusters, 1024 * kMiB);
  auto others = ReferenceCounts::create(kClusters, 1024 * kMiB);
  ASSERT_TRUE(counts && others);
  EXPECT_EQ(counts->last_used(), -1);
  ASSERT_TRUE(counts->set(3, 1));
  ASSERT_TRUE(counts->set(kClusters - 1, 7));
  ASSERT_TRUE(others->set(kClusters / 2, 0));
  EXPECT_EQ(counts->get(kClusters / 2), 0U);
  EXPECT_EQ(counts->get(kClusters - 1), 7U);
  EXPECT_EQ(counts->last_used(), static_cast<int64_t>(kClusters - 1));
  EXPECT_FALSE(counts->common(kClusters / 2, 2));
  std::vector<uint64_t> differing;
  ReferenceCounts::for_each_difference(*counts, *others, [&](uint64_t cluster) {
    differing.push_back(cluster);
    return true;
  });
  EXPECT_EQ(differing, (std::vector<uint64_t>{3, kClusters - 1}));
}

TEST(ReferenceCounts, TheLastUsedIsFoundAcrossWhatIsNotThere) {
  constexpr uint64_t kChunk = ReferenceCounts::kChunkClusters;
  constexpr uint64_t kGroup = 512 * kChunk;
  constexpr uint64_t kBranch = 512 * kGroup;
  auto counts = ReferenceCounts::create(3 * kBranch + 5, 64 * kMiB);
  ASSERT_TRUE(counts.has_value());
  const std::vector<uint64_t> used = {0,           kChunk - 1,     kChunk,  kGroup - 1,
                                      kGroup,      kBranch - 1,    kBranch, 2 * kBranch + kGroup,
                                      3 * kBranch, 3 * kBranch + 4};
  for (const uint64_t cluster : used) {
    ASSERT_TRUE(counts->set(cluster, 1));
    EXPECT_EQ(counts->last_used(), static_cast<int64_t>(cluster));
  }
  for (size_t left = used.size(); left-- > 0;) {
    EXPECT_EQ(counts->last_used(), static_cast<int64_t>(used[left]));
    ASSERT_TRUE(counts->set(used[left], 0));
  }
  EXPECT_EQ(counts->last_used(), -1);
}

// Either all of a range are changed, as one by one, or none.
TEST(ReferenceCounts, ShiftsManyAtOnce) {
  constexpr uint64_t kClusters = 3 * ReferenceCounts::kChunkClusters;
  auto counts = ReferenceCounts::create(kClusters, 4 * kMiB);
  std::vector<uint64_t> slow(kClusters);
  std::mt19937_64 random(1);
  uint64_t shifted = 0;
  for (int step = 0; step < 20000; ++step) {
    const uint64_t first = random() % kClusters;
    const uint64_t clusters = 1 + random() % 40;
    if (random() % 3 == 0) {
      const uint64_t end = std::min(first + clusters, kClusters);
      const uint64_t value = step > 18000 ? 300 : 1 + random() % 3;
      for (uint64_t i = first; i < end; ++i) {
        ASSERT_TRUE(counts->set(i, value));
        slow[i] = value;
      }
      continue;
    }
    const bool add = random() % 2 == 0;
    const bool one_chunk =
        first + clusters <= kClusters && clusters <= ReferenceCounts::left_in_chunk(first);
    bool may = one_chunk;
    for (uint64_t i = first; may && i < first + clusters; ++i)
      may = add ? slow[i] >= 1 && slow[i] <= 5 : slow[i] >= 2;
    const bool done =
        counts->shift(first, clusters, add ? 1 : 2, add ? 5 : UINT8_MAX, add ? 1 : -1);
    ASSERT_TRUE(may || !done);
    if (done) ++shifted;
    for (uint64_t i = first; done && i < first + clusters; ++i) slow[i] += add ? 1 : -1;
    for (uint64_t i = first; i < std::min(first + clusters, kClusters); ++i)
      ASSERT_EQ(counts->get(i), slow[i]);
    if (const auto common = counts->common(first, clusters)) {
      for (uint64_t i = first; i < first + clusters; ++i) ASSERT_EQ(slow[i], *common);
    }
  }
  EXPECT_GT(shifted, 200u);
}

TEST(ReferenceCounts, DifferencesAcrossWidths) {
  auto a = ReferenceCounts::create(200000, 4 * kMiB);
  auto b = ReferenceCounts::create(200000, 4 * kMiB);
  ASSERT_TRUE(a->set(1, 300) && b->set(1, 300));
  ASSERT_TRUE(a->set(2, 1) && a->set(131072, 0) && b->set(199999, 7));
  ASSERT_TRUE(b->set(70000, 1000) && b->set(70000, 0));
  std::vector<uint64_t> different;
  ReferenceCounts::for_each_difference(*a, *b, [&different](uint64_t cluster) {
    different.push_back(cluster);
    return true;
  });
  EXPECT_EQ(different, (std::vector<uint64_t>{2, 199999}));
}

}  // namespace
}  // namespace platter::format::qcow2
