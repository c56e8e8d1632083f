#include "tool/slow_request.h"

#include <fmt/format.h>

#include <charconv>
#include <chrono>

#include "base/try.h"

namespace platter::tool {

constexpr uint64_t kMostMilliseconds = 3'600'000;

Result<io::Nanoseconds> parse_slow_request(std::string_view text) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number == 0 ||
      number > kMostMilliseconds) {
    return fail(EINVAL, fmt::format("Expecting a number of milliseconds from 1 to {}, not '{}'",
                                    kMostMilliseconds, text));
  }
  return std::chrono::milliseconds(number);
}

}  // namespace platter::tool
