#include "job/compare_engine.h"

#include <random>

#include "job/engine_test.h"

namespace platter::job {
namespace {

constexpr uint64_t kMiB = 1 << 20;
using Kind = CompareOutcome::Kind;

class CompareTest : public EngineTest {
 protected:
  CompareOptions options(TestImage& first, TestImage& second) {
    CompareOptions options;
    options.images[0] = &open(first, false);
    options.images[1] = &open(second, false);
    options.reactors = reactors_;
    return options;
  }
  CompareOutcome outcome(TestImage& first, TestImage& second, bool strict = false) {
    CompareOptions compare_options = options(first, second);
    compare_options.strict = strict;
    return run(compare(std::move(compare_options)));
  }
};
INSTANTIATE_TEST_SUITE_P(Reactors, CompareTest, testing::Values(1u, 2u, 4u));

TEST_P(CompareTest, stored_zeroes_and_holes_read_the_same) {
  TestImage first(16 * kMiB);
  TestImage second(16 * kMiB);
  first.fill(kMiB, 5 * kMiB, 3);
  second.fill(kMiB, 5 * kMiB, 3);
  second.mark(10 * kMiB, kMiB);
  EXPECT_EQ(outcome(first, second).kind, Kind::kIdentical);
  EXPECT_EQ(first.bytes_of('r'), 5 * kMiB);
  EXPECT_EQ(second.bytes_of('r'), 6 * kMiB);
}

TEST_P(CompareTest, the_lowest_difference_is_told_whatever_ends_first) {
  std::mt19937_64 random(5);
  for (int round = 0; round < 20; ++round) {
    TestImage first(24 * kMiB);
    first.fill(0, first.bytes.size(), 1);
    TestImage second(24 * kMiB);
    second.bytes = first.bytes;
    second.allocated = first.allocated;
    first.max_yields = second.max_yields = 30;
    uint64_t lowest = UINT64_MAX;
    for (int i = 0; i < 5; ++i) {
      uint64_t at = random() % first.bytes.size();
      second.bytes[at] = 7;
      lowest = std::min(lowest, at);
    }
    auto result = outcome(first, second);
    EXPECT_EQ(result.kind, Kind::kContentDiffers);
    EXPECT_EQ(result.offset, lowest / 512 * 512);
  }
}

TEST_P(CompareTest, a_longer_image_must_end_in_zeroes) {
  TestImage first(4 * kMiB);
  TestImage second(6 * kMiB);
  first.fill(0, kMiB, 1);
  second.fill(0, kMiB, 1);
  second.mark(5 * kMiB, kMiB);
  EXPECT_EQ(outcome(first, second).kind, Kind::kIdentical);
  second.bytes[5 * kMiB + 1000] = 1;
  auto result = outcome(first, second);
  EXPECT_EQ(result.kind, Kind::kContentDiffers);
  EXPECT_EQ(result.offset, 5 * kMiB + 512);
  EXPECT_EQ(outcome(second, first).offset, 5 * kMiB + 512);
}

TEST_P(CompareTest, strict_looks_at_allocation) {
  TestImage first(4 * kMiB);
  TestImage second(4 * kMiB);
  second.mark(kMiB, kBlock);
  EXPECT_EQ(outcome(first, second).kind, Kind::kIdentical);
  auto result = outcome(first, second, true);
  EXPECT_EQ(result.kind, Kind::kStatusDiffers);
  EXPECT_EQ(result.offset, kMiB);
}

TEST_P(CompareTest, a_failed_read_is_told_unless_an_earlier_difference_is) {
  TestImage first(16 * kMiB);
  TestImage second(16 * kMiB);
  first.fill(0, first.bytes.size(), 1);
  second.fill(0, second.bytes.size(), 1);
  second.fault = [](char kind, uint64_t offset) {
    return kind == 'r' && offset >= 4 * kMiB ? EIO : 0;
  };
  auto result = outcome(first, second);
  EXPECT_EQ(result.kind, Kind::kReadFailed);
  EXPECT_EQ(result.offset, 4 * kMiB);
  EXPECT_EQ(result.image, 1u);
  ASSERT_TRUE(result.error.has_value());
  EXPECT_EQ(result.error->code(), EIO);
  first.bytes[kMiB] = 2;
  result = outcome(first, second);
  EXPECT_EQ(result.kind, Kind::kContentDiffers);
  EXPECT_EQ(result.offset, kMiB);
}

TEST_P(CompareTest, a_failed_status_is_told) {
  TestImage first(4 * kMiB);
  TestImage second(4 * kMiB);
  first.fault = [](char kind, uint64_t) { return kind == 's' ? EIO : 0; };
  auto result = outcome(first, second);
  EXPECT_EQ(result.kind, Kind::kStatusFailed);
  EXPECT_EQ(result.image, 0u);
}

TEST_P(CompareTest, a_cancelled_comparison_says_so) {
  TestImage first(4 * kMiB);
  TestImage second(4 * kMiB);
  first.fill(0, 4 * kMiB, 1);
  io::CancelSource cancel;
  cancel.cancel();
  CompareOptions compare_options = options(first, second);
  compare_options.cancel = cancel.token();
  EXPECT_EQ(run(compare(std::move(compare_options))).kind, Kind::kCancelled);
}

}  // namespace
}  // namespace platter::job
