#include "format/qcow2/stream_packer.h"

#include <gtest/gtest.h>

namespace platter::format::qcow2 {
namespace {

constexpr uint64_t kCluster = 65536;
constexpr Geometry kGeometry = {.cluster_bits = 16};

// A stream as its entry tells of it: to the end of its last sector.
Reference stream(uint64_t offset, uint64_t length, uint64_t place = 0) {
  const uint64_t end = base::align_up(offset + length, kSectorBytes);
  return {place, 0, offset, end - offset};
}

TEST(StreamPackerTest, NeighboursStayNeighboursInALargeHole) {
  // Each begins in the sector that the one before ends in.
  const uint64_t base = 10 * kCluster;
  std::vector<Reference> streams = {stream(base, 20100), stream(base + 20100, 50000),
                                    stream(base + 70100, 30000)};
  StreamPacker packer(kGeometry, {{kCluster, kCluster}, {4 * kCluster, 3 * kCluster}});
  const auto moves = packer.pack(streams);
  ASSERT_EQ(streams.size(), 3U);
  ASSERT_EQ(moves.size(), 3U);
  for (const Reference& reference : streams) EXPECT_EQ(reference.by, streams[0].by);
  EXPECT_EQ(moves[0].to + moves[0].bytes, 7 * kCluster);
  EXPECT_EQ(packer.filled(), (std::vector<uint64_t>{5, 6}));
}

TEST(StreamPackerTest, SmallHolesAreFilledWithTheLastStreamsFirst) {
  const uint64_t base = 10 * kCluster;
  std::vector<Reference> streams;
  for (uint64_t i = 0; i < 6; ++i) streams.push_back(stream(base + i * 30000, 30000, i));
  StreamPacker packer(kGeometry, {{2 * kCluster, kCluster}, {4 * kCluster, kCluster}});
  const auto moves = packer.pack(streams);
  ASSERT_EQ(streams.size(), 4U);  // two in each
  for (const Reference& reference : streams) EXPECT_GE(reference.place, 2U);
  for (const Move& move : moves) {
    EXPECT_EQ(move.to % kSectorBytes, 0U);
    EXPECT_EQ(move.to / kCluster, (move.to + move.bytes - 1) / kCluster);
  }
  EXPECT_EQ(packer.filled(), (std::vector<uint64_t>{2, 4}));
}

TEST(StreamPackerTest, ACountHoldsWhatItCan) {
  const uint64_t base = 10 * kCluster;
  const Geometry narrow = {.cluster_bits = 16, .refcount_order = 1};  // up to 3
  // The second one has two references, a snapshot's among them.
  std::vector<Reference> streams = {stream(base, 4096, 1), stream(base + 4096, 4096, 2),
                                    stream(base + 4096, 4096, 3), stream(base + 8192, 4096, 4),
                                    stream(base + 12288, 4096, 5)};
  StreamPacker packer(narrow, {{kCluster, kCluster}, {3 * kCluster, kCluster}});
  packer.pack(streams);
  ASSERT_EQ(streams.size(), 5U);
  EXPECT_EQ((streams[0].offset - streams[0].by) / kCluster, 1U);
  EXPECT_EQ((streams[1].offset - streams[1].by) / kCluster, 1U);
  EXPECT_EQ((streams[2].offset - streams[2].by) / kCluster, 3U);
  EXPECT_EQ(streams[2].by, streams[3].by);
  EXPECT_EQ((streams[4].offset - streams[4].by) / kCluster, 3U);
}

TEST(StreamPackerTest, WhatFitsNowhereEndsIt) {
  const uint64_t base = 10 * kCluster;
  // The second one is longer than the holes.
  std::vector<Reference> streams = {stream(base, 4096), stream(base + 4096, kCluster + 512),
                                    stream(base + 4 * kCluster, 4096)};
  StreamPacker packer(kGeometry, {{kCluster, kCluster}, {3 * kCluster, kCluster}});
  const auto moves = packer.pack(streams);
  EXPECT_EQ(moves.size(), 1U);
  ASSERT_EQ(streams.size(), 1U);
  EXPECT_EQ(streams[0].offset, base + 4 * kCluster);
  EXPECT_EQ(packer.filled(), (std::vector<uint64_t>{1}));
}

}  // namespace
}  // namespace platter::format::qcow2
