#include "virtio/dirty_log.h"

#include <gtest/gtest.h>

#include <vector>

namespace platter::virtio {
namespace {

TEST(DirtyLog, MarksEveryPageThatARangeTouches) {
  std::vector<uint8_t> bits(4);
  DirtyLog log(bits, nullptr);
  log.mark(4095, 2);
  EXPECT_EQ(bits, (std::vector<uint8_t>{3, 0, 0, 0}));
  log.mark(9 * DirtyLog::kPageBytes, 1);
  EXPECT_EQ(bits, (std::vector<uint8_t>{3, 2, 0, 0}));
  log.mark(16 * DirtyLog::kPageBytes, 8 * DirtyLog::kPageBytes);
  EXPECT_EQ(bits, (std::vector<uint8_t>{3, 2, 0xff, 0}));
}

TEST(DirtyLog, LeavesOutWhatItHasNoBitFor) {
  std::vector<uint8_t> bits(1);
  DirtyLog log(bits, nullptr);
  log.mark(7 * DirtyLog::kPageBytes, 100 * DirtyLog::kPageBytes);
  log.mark(UINT64_MAX - 10, 10);
  log.mark(0, 0);
  EXPECT_EQ(bits, (std::vector<uint8_t>{0x80}));
}

}  // namespace
}  // namespace platter::virtio
