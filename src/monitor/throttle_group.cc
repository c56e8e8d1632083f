#include "monitor/throttle_group.h"

#include <fmt/format.h>

#include <cerrno>

#include "base/try.h"

namespace platter::monitor {
namespace {

// Above it a rate is taken for a mistake.
constexpr uint64_t kMaxThrottle = 1'000'000'000'000'000;

struct ThrottleProperty {
  std::string name;  // without its prefix
  uint64_t ThrottleBucket::* member;
  size_t bucket;
};

std::vector<ThrottleProperty> throttle_properties() {
  std::vector<ThrottleProperty> properties;
  for (size_t i = 0; i < kThrottleBuckets.size(); ++i) {
    const std::string name(kThrottleBuckets[i]);
    properties.push_back({name, &ThrottleBucket::average, i});
    properties.push_back({name + "-max", &ThrottleBucket::burst, i});
    properties.push_back({name + "-max-length", &ThrottleBucket::burst_seconds, i});
  }
  return properties;
}

}  // namespace

std::vector<std::string> limit_names() {
  std::vector<std::string> names;
  for (const auto& property : throttle_properties()) names.push_back(property.name);
  names.push_back("iops-size");
  return names;
}

Result<void> check_buckets(const ThrottleGroup& group) {
  for (size_t first = 0; first < group.buckets.size(); first += 3) {
    const auto& total = group.buckets[first];
    const auto& read = group.buckets[first + 1];
    const auto& write = group.buckets[first + 2];
    if ((total.average != 0 && (read.average != 0 || write.average != 0)) ||
        (total.burst != 0 && (read.burst != 0 || write.burst != 0))) {
      return fail(EINVAL,
                  "bps/iops/max total values and read/write values cannot be used at the same "
                  "time");
    }
  }
  if (group.operation_bytes != 0 && group.buckets[0].average == 0 &&
      group.buckets[1].average == 0 && group.buckets[2].average == 0) {
    return fail(EINVAL, "iops size requires an iops value to be set");
  }
  for (const ThrottleBucket& bucket : group.buckets) {
    if (bucket.average > kMaxThrottle || bucket.burst > kMaxThrottle)
      return fail(EINVAL, fmt::format("bps/iops/max values must be within [0, {}]", kMaxThrottle));
    if (bucket.burst_seconds == 0) return fail(EINVAL, "the burst length cannot be 0");
    if (bucket.burst_seconds > 1 && bucket.burst == 0)
      return fail(EINVAL, "burst length set without burst rate");
    if (bucket.burst != 0 && bucket.burst_seconds > kMaxThrottle / bucket.burst)
      return fail(EINVAL, "burst length too high for this burst rate");
    if (bucket.burst != 0 && bucket.average == 0)
      return fail(EINVAL, "bps_max/iops_max require corresponding bps/iops values");
    if (bucket.burst != 0 && bucket.burst < bucket.average)
      return fail(EINVAL, "bps_max/iops_max cannot be lower than bps/iops");
  }
  return {};
}

Result<ThrottleGroup> take_throttle_group(Properties& properties, ThrottleGroup group) {
  // The same limits under two names; the older one refuses negative numbers by itself.
  for (const std::string_view prefix : {"limits.", "x-"}) {
    for (const auto& property : throttle_properties()) {
      PLATTER_ASSIGN(auto value, properties.take_integer(std::string(prefix) + property.name));
      if (!value) continue;
      if (*value < 0 && prefix == "x-") return fail(EINVAL, "Property values cannot be negative");
      group.buckets[property.bucket].*property.member = static_cast<uint64_t>(*value);
    }
    PLATTER_ASSIGN(auto size, properties.take_integer(std::string(prefix) + "iops-size"));
    if (size && *size < 0 && prefix == "x-")
      return fail(EINVAL, "Property values cannot be negative");
    if (size) group.operation_bytes = static_cast<uint64_t>(*size);
  }
  return group;
}

std::vector<ObjectProperty> describe(const ThrottleGroup& group) {
  base::Json limits = base::Json::object();
  std::vector<ObjectProperty> properties;
  auto add = [&](const std::string& name, uint64_t value) {
    limits.add(name, value);
    properties.push_back({"x-" + name, "int", value});
  };
  for (const auto& property : throttle_properties())
    add(property.name, group.buckets[property.bucket].*property.member);
  add("iops-size", group.operation_bytes);
  properties.push_back({"limits", "ThrottleLimits", std::move(limits)});
  return properties;
}

}  // namespace platter::monitor
