#include "virtio/blk/error_policy.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <vector>

namespace platter::virtio::blk {
namespace {

using enum ErrorAction;

TEST(ErrorPolicyTest, ReportsAndStopsWithoutSpaceByItself) {
  ErrorPolicy policy(OnError::kAuto, OnError::kAuto);
  EXPECT_TRUE(policy.has_status());
  EXPECT_EQ(policy.judge(true, ENOSPC), kReport);
  EXPECT_EQ(policy.judge(false, EIO), kReport);
  EXPECT_FALSE(policy.is_stopped());
  EXPECT_EQ(policy.judge(false, ENOSPC), kStop);
  EXPECT_TRUE(policy.is_stopped());
  EXPECT_EQ(policy.status(), ErrorPolicy::IoStatus::kNoSpace);
}

TEST(ErrorPolicyTest, DoesWhatItsUserSays) {
  ErrorPolicy policy(OnError::kIgnore, OnError::kStop);
  EXPECT_EQ(policy.judge(true, EIO), kIgnore);
  EXPECT_EQ(policy.judge(false, EIO), kStop);
  EXPECT_EQ(policy.status(), ErrorPolicy::IoStatus::kFailed);
}

TEST(ErrorPolicyTest, KeepsWhateverFailsAfterAnError) {
  ErrorPolicy policy(OnError::kReport, OnError::kEnospc);
  EXPECT_EQ(policy.judge(false, ENOSPC), kStop);
  EXPECT_EQ(policy.judge(true, EIO), kStop);
  EXPECT_EQ(policy.judge(false, EIO), kStop);
  // The first one tells.
  EXPECT_EQ(policy.status(), ErrorPolicy::IoStatus::kNoSpace);
  policy.go_on();
  EXPECT_EQ(policy.judge(true, EIO), kReport);
  EXPECT_EQ(policy.status(), ErrorPolicy::IoStatus::kOk);
}

TEST(ErrorPolicyTest, AStopByItsUserKeepsNoErrorBack) {
  ErrorPolicy policy(OnError::kReport, OnError::kReport);
  EXPECT_FALSE(policy.has_status());
  policy.stop_by_user();
  EXPECT_EQ(policy.judge(false, EIO), kReport);
  EXPECT_TRUE(policy.is_stopped());
  EXPECT_FALSE(policy.is_stopped_by_error());
}

TEST(ErrorPolicyTest, SaysWhatStopsIt) {
  ErrorPolicy policy(OnError::kStop, OnError::kReport);
  std::vector<bool> stops;
  policy.set_observer([&](const RequestFailure& failure) { stops.push_back(failure.stops); });
  policy.judge(false, EIO);
  policy.judge(true, EIO);
  policy.judge(true, EIO);
  policy.forget_stop();
  policy.judge(true, EIO);
  EXPECT_EQ(stops, (std::vector<bool>{false, true, false, true}));
}

}  // namespace
}  // namespace platter::virtio::blk
