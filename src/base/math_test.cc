#include "base/math.h"

#include <gtest/gtest.h>

namespace platter::base {
namespace {

TEST(Math, CheckedArithmeticSeesOverflow) {
  EXPECT_EQ(checked_add<uint64_t>(UINT64_MAX - 1, 1), UINT64_MAX);
  EXPECT_EQ(checked_add<uint64_t>(UINT64_MAX, 1), std::nullopt);
  EXPECT_EQ(checked_add<int64_t>(INT64_MIN, -1), std::nullopt);
  EXPECT_EQ(checked_mul<uint64_t>(uint64_t{1} << 32, uint64_t{1} << 31), uint64_t{1} << 63);
  EXPECT_EQ(checked_mul<uint64_t>(uint64_t{1} << 32, uint64_t{1} << 32), std::nullopt);
}

TEST(Math, Alignment) {
  EXPECT_EQ(align_down(4097, 4096), 4096u);
  EXPECT_EQ(align_up(4097, 4096), 8192u);
  EXPECT_EQ(align_up(4096, 4096), 4096u);
  EXPECT_TRUE(is_aligned(0, 512));
  EXPECT_FALSE(is_aligned(513, 512));
  EXPECT_EQ(checked_align_up(UINT64_MAX - 4095, 4096), UINT64_MAX - 4095);
  EXPECT_EQ(checked_align_up(UINT64_MAX - 4094, 4096), std::nullopt);
  EXPECT_EQ(divide_round_up(0, 7), 0u);
  EXPECT_EQ(divide_round_up(UINT64_MAX, 2), uint64_t{1} << 63);
}

TEST(Math, RangeWithinDoesNotWrap) {
  EXPECT_TRUE(range_within(0, 0, 0));
  EXPECT_TRUE(range_within(10, 5, 15));
  EXPECT_FALSE(range_within(10, 6, 15));
  EXPECT_FALSE(range_within(UINT64_MAX, 2, 15));
  EXPECT_FALSE(range_within(2, UINT64_MAX, 15));
}

}  // namespace
}  // namespace platter::base
