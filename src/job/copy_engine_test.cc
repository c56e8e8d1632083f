#include "job/copy_engine.h"

#include <random>

#include "job/engine_test.h"

namespace platter::job {
namespace {

constexpr uint64_t kMiB = 1 << 20;

class CopyTest : public EngineTest {
 protected:
  CopyOptions options(TestImage& source, TestImage& target) {
    CopyOptions options;
    options.sources = {{&open(source, false), nullptr}};
    options.target = &open(target, true);
    options.reactors = reactors_;
    return options;
  }
};
INSTANTIATE_TEST_SUITE_P(Reactors, CopyTest, testing::Values(1u, 2u, 4u));

// Runs of data, zeroes that are stored, and holes, of lengths from a sector to several chunks.
void scatter(TestImage& image, uint64_t seed) {
  std::mt19937_64 random(seed);
  uint64_t offset = 0;
  while (offset < image.bytes.size()) {
    uint64_t length = std::min(uint64_t{512} << random() % 13, image.bytes.size() - offset);
    switch (random() % 3) {
      case 0: image.fill(offset, length, static_cast<uint8_t>(random() | 1)); break;
      case 1: image.mark(offset, length); break;
    }
    offset += length;
  }
}

TEST_P(CopyTest, the_target_reads_as_the_source_did) {
  for (uint64_t seed = 0; seed < 12; ++seed) {
    TestImage source(20 * kMiB + 512 * (seed % 3));
    TestImage target(source.bytes.size() + (seed % 2) * kMiB);
    scatter(source, seed);
    source.max_yields = target.max_yields = 3;
    if (seed % 2 == 0) target.limits.zero_alignment = 65536;
    CopyOptions copy_options = options(source, target);
    copy_options.any_order = seed % 4 < 2;
    copy_options.target_reads_zero = seed % 3 != 0;
    if (!copy_options.target_reads_zero) target.fill(0, source.bytes.size(), 0x55);
    if (seed == 7) copy_options.sparse_size = 0;
    if (seed == 8) copy_options.buffer_size = 64 << 10;
    auto copied = run(copy(copy_options));
    ASSERT_TRUE(copied.has_value()) << copied.error().message();
    EXPECT_TRUE(std::equal(source.bytes.begin(), source.bytes.end(), target.bytes.begin())) << seed;
    EXPECT_EQ(copied->data_bytes + copied->zero_bytes + copied->skipped_bytes, source.bytes.size());
  }
}

TEST_P(CopyTest, writes_start_in_guest_order) {
  TestImage source(32 * kMiB);
  TestImage target(32 * kMiB);
  scatter(source, 3);
  source.max_yields = 20;
  target.max_yields = 20;
  CopyOptions copy_options = options(source, target);
  copy_options.buffer_size = 128 << 10;
  copy_options.workers = 16;
  ASSERT_TRUE(run(copy(copy_options)).has_value());
  auto writes = target.accesses('w');
  ASSERT_GT(writes.size(), 20u);
  EXPECT_TRUE(std::is_sorted(writes.begin(), writes.end(),
                             [](const auto& a, const auto& b) { return a.offset < b.offset; }));
}

TEST_P(CopyTest, a_fresh_target_is_not_told_of_zeroes) {
  TestImage source(uint64_t{64} * kMiB);
  TestImage target(source.bytes.size());
  source.fill(kMiB, 8192, 1);
  source.mark(10 * kMiB, 4 * kMiB);  // stored zeroes
  CopyOptions copy_options = options(source, target);
  copy_options.target_reads_zero = true;
  auto copied = run(copy(copy_options));
  ASSERT_TRUE(copied.has_value());
  EXPECT_EQ(target.bytes_of('w'), 8192u);
  EXPECT_EQ(target.accesses('z').size(), 0u);
  EXPECT_EQ(source.bytes_of('r'), 8192 + 4 * kMiB);
  EXPECT_EQ(copied->data_bytes, 8192u);
  EXPECT_EQ(copied->zero_bytes, 4 * kMiB);
}

TEST_P(CopyTest, a_long_hole_is_zeroed_in_one_step) {
  TestImage source(uint64_t{64} * kMiB);
  TestImage target(source.bytes.size());
  target.fill(0, target.bytes.size(), 9);
  ASSERT_TRUE(run(copy(options(source, target))).has_value());
  EXPECT_EQ(target.accesses('z').size(), 1u);
  EXPECT_EQ(source.accesses('r').size(), 0u);
  EXPECT_EQ(target.bytes, source.bytes);
}

TEST_P(CopyTest, clusters_of_the_target_are_written_whole) {
  constexpr uint64_t kCluster = 64 << 10;
  TestImage source(16 * kMiB);
  TestImage target(source.bytes.size());
  target.limits.zero_alignment = kCluster;
  for (uint64_t offset = kBlock; offset < source.bytes.size(); offset += 200 << 10)
    source.fill(offset, kBlock, 1);
  CopyOptions copy_options = options(source, target);
  copy_options.target_reads_zero = true;
  ASSERT_TRUE(run(copy(copy_options)).has_value());
  EXPECT_EQ(target.bytes, source.bytes);
  for (const auto& write : target.accesses('w')) {
    EXPECT_EQ(write.offset % kCluster, 0u);
    EXPECT_EQ(write.length % kCluster, 0u);
  }
  EXPECT_LT(target.bytes_of('w'), source.bytes.size() / 2);
}

TEST_P(CopyTest, sources_are_concatenated) {
  TestImage first(kMiB + 512);
  TestImage second(3 * kMiB);
  TestImage target(4 * kMiB + 512);
  scatter(first, 1);
  scatter(second, 2);
  CopyOptions copy_options = options(first, target);
  copy_options.sources.push_back({&open(second, false), nullptr});
  copy_options.target_reads_zero = true;
  ASSERT_TRUE(run(copy(copy_options)).has_value());
  std::vector<uint8_t> expected = first.bytes;
  expected.insert(expected.end(), second.bytes.begin(), second.bytes.end());
  EXPECT_EQ(target.bytes, expected);
}

TEST_P(CopyTest, a_failed_read_says_where_and_ends_the_copy) {
  TestImage source(64 * kMiB);
  TestImage target(source.bytes.size());
  source.fill(0, source.bytes.size(), 1);
  source.fault = [](char kind, uint64_t offset) {
    return kind == 'r' && offset == 5 * kMiB ? EIO : 0;
  };
  auto copied = run(copy(options(source, target)));
  ASSERT_FALSE(copied.has_value());
  EXPECT_EQ(copied.error().message(), "error while reading at byte 5242880: Input/output error");
  EXPECT_EQ(copied.error().code(), EIO);
  EXPECT_LT(target.bytes_of('w'), 32 * kMiB);
}

TEST_P(CopyTest, a_failed_write_says_where_and_ends_the_copy) {
  TestImage source(64 * kMiB);
  TestImage target(source.bytes.size());
  source.fill(0, source.bytes.size(), 1);
  target.max_yields = 5;
  target.fault = [](char kind, uint64_t offset) {
    return kind == 'w' && offset >= 7 * kMiB ? ENOSPC : 0;
  };
  auto copied = run(copy(options(source, target)));
  ASSERT_FALSE(copied.has_value());
  EXPECT_EQ(copied.error().code(), ENOSPC);
  EXPECT_TRUE(copied.error().message().starts_with("error while writing at byte "))
      << copied.error().message();
  EXPECT_LT(target.bytes_of('w'), 32 * kMiB);
}

TEST_P(CopyTest, every_failing_request_is_survived) {
  for (uint64_t nth = 0; nth < 40; ++nth) {
    TestImage source(8 * kMiB);
    TestImage target(source.bytes.size());
    scatter(source, nth);
    std::atomic<uint64_t> count = 0;
    auto fault = [&](char, uint64_t) { return count.fetch_add(1) == nth ? EIO : 0; };
    source.fault = target.fault = fault;
    auto copied = run(copy(options(source, target)));
    EXPECT_EQ(copied.has_value(), count.load() <= nth);
  }
}

TEST_P(CopyTest, a_cancelled_copy_ends_soon) {
  TestImage source(64 * kMiB);
  TestImage target(source.bytes.size());
  source.fill(0, source.bytes.size(), 1);
  io::CancelSource cancel;
  target.fault = [&](char, uint64_t offset) {
    if (offset >= 4 * kMiB) cancel.cancel();
    return 0;
  };
  CopyOptions copy_options = options(source, target);
  copy_options.cancel = cancel.token();
  auto copied = run(copy(copy_options));
  ASSERT_FALSE(copied.has_value());
  EXPECT_EQ(copied.error().code(), ECANCELED);
  EXPECT_LE(target.bytes_of('w'), 24 * kMiB);
}

TEST_P(CopyTest, progress_counts_the_data_up_to_its_end) {
  TestImage source(32 * kMiB);
  TestImage target(source.bytes.size());
  source.fill(4 * kMiB, 10 * kMiB, 1);
  std::mutex mutex;
  uint64_t last = 0;
  uint64_t total_seen = 0;
  CopyOptions copy_options = options(source, target);
  copy_options.count_beforehand = true;
  copy_options.progress = [&](uint64_t done, uint64_t total) {
    std::lock_guard lock(mutex);
    last = std::max(last, done);
    total_seen = total;
  };
  ASSERT_TRUE(run(copy(copy_options)).has_value());
  EXPECT_EQ(total_seen, 10 * kMiB);
  EXPECT_EQ(last, total_seen);
}

TEST_P(CopyTest, a_failed_status_says_where) {
  TestImage source(32 * kMiB);
  TestImage target(source.bytes.size());
  source.fill(0, 2 * kMiB, 1);
  source.fault = [](char kind, uint64_t offset) {
    return kind == 's' && offset >= 2 * kMiB ? EIO : 0;
  };
  auto copied = run(copy(options(source, target)));
  ASSERT_FALSE(copied.has_value());
  EXPECT_EQ(copied.error().message(),
            "error while reading block status at byte 2097152: Input/output error");
}

}  // namespace
}  // namespace platter::job
