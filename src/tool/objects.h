// Objects: what --object defines for the rest of the command line to name: secrets, throttle
// groups, I/O threads. Each is parsed and validated when it is given, and kept until the command
// ends.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/secret_bytes.h"
#include "block/secret_source.h"
#include "platter/error.h"

namespace platter::tool {

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

struct IoThread {
  uint64_t poll_max_ns = 32768;
  uint64_t max_batch = 0;  // 0: chosen
};

class Objects final : public block::SecretSource {
 public:
  // "TYPE,id=ID,...", or the same as a JSON object. An error leaves nothing behind.
  Result<void> add(std::string_view definition);

  Result<base::SecretBytes> secret(std::string_view id) const override;
  // By id; null: there is none of that type.
  const ThrottleGroup* throttle_group(std::string_view id) const;
  const IoThread* io_thread(std::string_view id) const;

 private:
  using Object = std::variant<base::SecretBytes, ThrottleGroup, IoThread>;
  std::map<std::string, Object, std::less<>> objects_;
};

// The text that a definition asks for ("help", or "TYPE,help"); empty: it asks for none.
std::string object_help(std::string_view definition);

}  // namespace platter::tool
