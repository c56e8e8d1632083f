// The type throttle-group: limits of what goes through a disk in a second.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "monitor/object_properties.h"
#include "platter/error.h"

namespace platter::monitor {

// One limit of a throttle group; 0: none.
struct ThrottleBucket {
  uint64_t average = 0;        // units a second
  uint64_t burst = 0;          // units a second, for burst_seconds
  uint64_t burst_seconds = 1;  // not 0
};

struct ThrottleGroup {
  // The order of kThrottleBuckets.
  std::array<ThrottleBucket, 6> buckets;
  uint64_t operation_bytes = 0;  // a larger request counts as several; 0: each counts once
};
inline constexpr std::array<std::string_view, 6> kThrottleBuckets = {
    "iops-total", "iops-read", "iops-write", "bps-total", "bps-read", "bps-write"};

// The names of its limits.
std::vector<std::string> limit_names();
// What the properties do not say stays as it is.
Result<ThrottleGroup> take_throttle_group(Properties& properties, ThrottleGroup group = {});
// EINVAL: limits that cannot be, or not beside each other.
Result<void> check_buckets(const ThrottleGroup& group);
std::vector<ObjectProperty> describe(const ThrottleGroup& group);

}  // namespace platter::monitor
