#include "virtio/blk/slow_requests.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/bytes.h"

namespace platter::virtio::blk {
namespace {

using namespace std::chrono_literals;

class SlowRequestsTest : public testing::Test {
 protected:
  std::vector<std::string> lines_;
  base::Log log_{[this](base::LogLevel, std::string_view line) { lines_.emplace_back(line); }};
  SlowRequests slow_{log_, "disk", 10ms};
  uint8_t data_[4096] = {};
  Request write_{.kind = Kind::kReadWrite,
                 .out = true,
                 .sector = 8,
                 .from_driver = io::BufferList(data_, sizeof data_),
                 .to_driver = {},
                 .status = nullptr};
};

TEST_F(SlowRequestsTest, SaysWhereTheTimeWent) {
  slow_.ended(write_, {.total = 9ms, .in_queue = 1ms, .in_files = 2ms}, 1s);
  EXPECT_TRUE(lines_.empty());
  slow_.ended(write_, {.total = 10ms, .in_queue = 1ms, .in_files = 2500us}, 1s);
  write_.kind = Kind::kFlush;
  slow_.ended(write_, {.total = 11ms, .in_queue = 0ms, .in_files = 11ms}, 1s);
  EXPECT_EQ(lines_, std::vector<std::string>(
                        {"disk: slow request: write of 4096 bytes at 4096 took 10.0 ms: 1.0 ms in "
                         "the queue, 6.5 ms in the block layer, 2.5 ms in files",
                         "disk: slow request: flush took 11.0 ms: 0.0 ms in the queue, 0.0 ms in "
                         "the block layer, 11.0 ms in files"}));
}

TEST_F(SlowRequestsTest, SaysWhatADiscardIsOf) {
  uint8_t range[16] = {};
  base::store_little<uint64_t>(range, 0, 2048);
  base::store_little<uint32_t>(range, 8, 128);
  Request request{.kind = Kind::kDiscard,
                  .out = true,
                  .sector = 0,
                  .from_driver = io::BufferList(range, sizeof range),
                  .to_driver = {},
                  .status = nullptr};
  slow_.ended(request, {.total = 20ms}, 1s);
  request.kind = Kind::kWriteZeroes;
  slow_.ended(request, {.total = 20ms}, 1s);
  request.from_driver = io::BufferList(range, 8);
  slow_.ended(request, {.total = 20ms}, 1s);
  ASSERT_EQ(lines_.size(), 3u);
  EXPECT_TRUE(lines_[0].starts_with("disk: slow request: discard of 65536 bytes at 1048576 took "))
      << lines_[0];
  EXPECT_TRUE(lines_[1].starts_with("disk: slow request: write of zeroes of 65536 bytes at "))
      << lines_[1];
  EXPECT_TRUE(lines_[2].starts_with("disk: slow request: write of zeroes took ")) << lines_[2];
}

TEST_F(SlowRequestsTest, WritesSoManyLinesASecondAndCountsTheOthers) {
  const SlowRequests::Times times{.total = 20ms};
  for (unsigned i = 0; i < SlowRequests::kLinesASecond + 5; ++i)
    slow_.ended(write_, times, 1s + i * 1ms);
  EXPECT_EQ(lines_.size(), SlowRequests::kLinesASecond);
  slow_.ended(write_, times, 2s);
  ASSERT_EQ(lines_.size(), SlowRequests::kLinesASecond + 1);
  EXPECT_TRUE(lines_.back().ends_with(" (5 more before it)")) << lines_.back();
}

}  // namespace
}  // namespace platter::virtio::blk
