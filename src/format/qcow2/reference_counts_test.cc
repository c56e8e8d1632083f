#include "format/qcow2/reference_counts.h"

#include <gtest/gtest.h>

#include <cerrno>

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
  auto counts = ReferenceCounts::create(10 * kChunk, kChunk * 3 / 2);
  ASSERT_TRUE(counts.has_value());
  EXPECT_TRUE(counts->set(0, 1));
  EXPECT_FALSE(counts->set(kChunk, 1));
  EXPECT_EQ(counts->get(kChunk), 0u);
  EXPECT_FALSE(counts->set(0, 300));
  EXPECT_EQ(counts->get(0), 1u);
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
