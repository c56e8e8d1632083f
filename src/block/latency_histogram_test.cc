#include "block/latency_histogram.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace platter::block {
namespace {

using testing::ElementsAre;

TEST(LatencyHistogram, BinsEndBeforeTheirBoundaries) {
  LatencyHistogram histogram({10, 20});
  histogram.add(0, 0);
  histogram.add(0, 9);
  histogram.add(0, 10);
  histogram.add(0, 20);
  histogram.add(0, UINT64_MAX);
  EXPECT_THAT(histogram.bins(), ElementsAre(2, 1, 2));
}

TEST(LatencyHistogram, AddsUpWhatReactorsHaveCounted) {
  LatencyHistogram histogram({5});
  for (unsigned slot = 0; slot < 64; ++slot) histogram.add(slot, slot % 10);
  EXPECT_THAT(histogram.bins(), ElementsAre(34, 30));
}

}  // namespace
}  // namespace platter::block
