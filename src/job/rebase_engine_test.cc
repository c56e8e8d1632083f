#include "job/rebase_engine.h"

#include "job/engine_test.h"

namespace platter::job {
namespace {

constexpr uint64_t kSize = 4 << 20;

class RebaseTest : public EngineTest {
 protected:
  // `overlay` allocates what it was given; what it does not shows `old_backing` by itself here, as
  // a chain would.
  Result<uint64_t> rebase(TestImage& overlay, TestImage* old_backing, TestImage* new_backing) {
    RebaseOptions options;
    options.overlay = &open(overlay, true);
    if (old_backing != nullptr) options.old_backing = &open(*old_backing, false);
    if (new_backing != nullptr) options.new_backing = &open(*new_backing, false);
    options.reactors = reactors_;
    options.cancel = cancel_.token();
    return run(job::rebase(std::move(options)));
  }
  io::CancelSource cancel_;
};

TEST_P(RebaseTest, writes_what_differs_and_nothing_else) {
  TestImage overlay(kSize), old_backing(kSize), new_backing(kSize);
  overlay.limits.zero_alignment = kBlock;
  for (TestImage* image : {&old_backing, &new_backing}) image->fill(0, kSize / 2, 7);
  old_backing.fill(8 * kBlock, kBlock, 1);       // differs
  new_backing.fill(20 * kBlock, 2 * kBlock, 2);  // differs
  overlay.fill(20 * kBlock, kBlock, 9);          // but for what the overlay has
  old_backing.fill(kSize / 2 + kBlock, kBlock, 3);
  auto written = rebase(overlay, &old_backing, &new_backing);
  ASSERT_TRUE(written.has_value()) << written.error().message();
  EXPECT_EQ(*written, 3 * kBlock);
  EXPECT_EQ(overlay.bytes_of('w'), 3 * kBlock);
  EXPECT_EQ(overlay.bytes[8 * kBlock], 1);
  EXPECT_EQ(overlay.bytes[20 * kBlock], 9);
  EXPECT_EQ(overlay.bytes[21 * kBlock], 7);
  EXPECT_EQ(overlay.bytes[kSize / 2 + kBlock], 3);
  // Where both are known to be zeroes nothing was read.
  for (const auto& access : new_backing.accesses('r'))
    EXPECT_LT(access.offset, kSize / 2 + kSize / 4);
}

// What such an overlay does not store reads as zeroes now and as its new backing file later.
TEST_P(RebaseTest, without_an_old_backing_file_zeroes_are_data) {
  TestImage overlay(kSize), new_backing(kSize);
  overlay.limits.zero_alignment = kBlock;
  overlay.fill(0, kBlock, 9);
  new_backing.fill(0, 3 * kBlock, 7);
  auto written = rebase(overlay, nullptr, &new_backing);
  ASSERT_TRUE(written.has_value()) << written.error().message();
  EXPECT_EQ(overlay.bytes_of('w'), 2 * kBlock);
  EXPECT_EQ(overlay.bytes[0], 9);
}

TEST_P(RebaseTest, shorter_backing_files_end_in_zeroes) {
  TestImage overlay(kSize), old_backing(kSize / 4), new_backing(kSize / 2);
  overlay.limits.zero_alignment = kBlock;
  old_backing.fill(0, kSize / 4, 5);
  new_backing.fill(0, kSize / 2, 5);
  auto written = rebase(overlay, &old_backing, &new_backing);
  ASSERT_TRUE(written.has_value()) << written.error().message();
  EXPECT_EQ(*written, kSize / 4);
  EXPECT_EQ(overlay.bytes_of('z'), kSize / 4);
  EXPECT_EQ(overlay.bytes_of('w'), 0u);
}

TEST_P(RebaseTest, without_a_new_backing_file_everything_comes_along) {
  TestImage overlay(kSize), old_backing(kSize);
  overlay.limits.zero_alignment = kBlock;
  old_backing.fill(kBlock, 100 * kBlock, 5);
  overlay.fill(10 * kBlock, kBlock, 6);
  auto written = rebase(overlay, &old_backing, nullptr);
  ASSERT_TRUE(written.has_value()) << written.error().message();
  EXPECT_EQ(*written, 99 * kBlock);
  EXPECT_EQ(overlay.bytes[10 * kBlock], 6);
  EXPECT_EQ(overlay.bytes[11 * kBlock], 5);
}

TEST_P(RebaseTest, errors_say_where_and_stop_it) {
  for (char kind : {'o', 'n', 'w', 's'}) {
    TestImage overlay(kSize), old_backing(kSize), new_backing(kSize);
    overlay.limits.zero_alignment = kBlock;
    old_backing.fill(0, kSize, 5);
    new_backing.fill(0, kSize, 6);
    const auto failing = [](char wanted) {
      return [wanted](char access, uint64_t) { return access == wanted ? EIO : 0; };
    };
    if (kind == 'o') old_backing.fault = failing('r');
    if (kind == 'n') new_backing.fault = failing('r');
    if (kind == 'w') overlay.fault = failing('w');
    if (kind == 's') overlay.fault = failing('s');
    auto written = rebase(overlay, &old_backing, &new_backing);
    ASSERT_FALSE(written.has_value());
    EXPECT_EQ(written.error().code(), EIO);
    const std::string& message = written.error().message();
    if (kind == 'o')
      EXPECT_NE(message.find("old backing file at byte"), std::string::npos) << message;
    if (kind == 'n')
      EXPECT_NE(message.find("new backing file at byte"), std::string::npos) << message;
    if (kind == 'w')
      EXPECT_NE(message.find("error while writing at byte"), std::string::npos) << message;
  }
}

TEST_P(RebaseTest, stops_when_cancelled) {
  TestImage overlay(kSize), old_backing(kSize);
  old_backing.fill(0, kSize, 5);
  cancel_.cancel();
  auto written = rebase(overlay, &old_backing, nullptr);
  ASSERT_FALSE(written.has_value());
  EXPECT_EQ(written.error().code(), ECANCELED);
  EXPECT_EQ(overlay.bytes_of('w'), 0u);
}

INSTANTIATE_TEST_SUITE_P(Reactors, RebaseTest, testing::Values(1u, 4u));

}  // namespace
}  // namespace platter::job
