#include "tool/io_shell/numbers.h"

#include <array>
#include <cerrno>
#include <charconv>
#include <limits>

#include "base/size.h"
#include "base/try.h"
#include "fmt/format.h"

namespace platter::tool::io_shell {
namespace {

// The base that the prefix says, which is taken off; a lone "0" is decimal.
int take_base(std::string_view& text) {
  if (text.size() < 2 || text[0] != '0') return 10;
  if (text[1] != 'x' && text[1] != 'X') return 8;
  text.remove_prefix(2);
  return 16;
}

std::optional<long long> parse_integer(std::string_view text) {
  const bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.remove_prefix(1);
  const int radix = take_base(text);
  unsigned long long value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, radix);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  if (value > static_cast<unsigned long long>(std::numeric_limits<long long>::max()))
    return std::nullopt;
  return negative ? -static_cast<long long>(value) : static_cast<long long>(value);
}

}  // namespace

Result<uint64_t> parse_bytes(std::string_view text) {
  auto size = base::parse_size(text);
  if (size) return *size;
  if (size.error().code() == ERANGE) {
    return fail(ERANGE, fmt::format("Parsing error: argument too large -- {}", text));
  }
  return fail(EINVAL, fmt::format("Parsing error: non-numeric argument, or "
                                  "extraneous/unrecognized suffix -- {}",
                                  text));
}

Result<uint8_t> parse_pattern(std::string_view text) {
  const auto value = parse_integer(text);
  if (!value || *value < 0 || *value > UINT8_MAX) {
    return fail(EINVAL, fmt::format("{} is not a valid pattern byte", text));
  }
  return static_cast<uint8_t>(*value);
}

std::optional<int> parse_count(std::string_view text) {
  const auto value = parse_integer(text);
  if (!value || *value < 0 || *value > std::numeric_limits<int>::max()) return std::nullopt;
  return static_cast<int>(*value);
}

std::string format_bytes(double bytes) {
  static constexpr std::array<std::string_view, 6> kUnits = {"KiB", "MiB", "GiB",
                                                             "TiB", "PiB", "EiB"};
  constexpr double kStep = 1024;
  if (bytes < kStep) {
    std::string text = fmt::format("{:f}", bytes);
    if (text.ends_with(".000000")) text.resize(text.size() - 7);
    return text + " bytes";
  }
  size_t unit = 0;
  bytes /= kStep;
  for (; bytes >= kStep && unit + 1 < kUnits.size(); ++unit) bytes /= kStep;
  std::string text = fmt::format("{:.3f}", bytes);
  if (text.ends_with(".000")) text.resize(text.size() - 4);
  return fmt::format("{} {}", text, kUnits[unit]);
}

std::string format_elapsed(uint64_t nanoseconds, bool fixed) {
  constexpr uint64_t kNanosecondsPerHundredth = 10'000'000;
  const uint64_t hundredths =
      (nanoseconds + kNanosecondsPerHundredth / 2) / kNanosecondsPerHundredth;
  const uint64_t seconds = hundredths / 100;
  if (seconds == 0 && !fixed) return fmt::format("00.{:02} sec", hundredths);
  return fmt::format("{}:{:02}:{:02}.{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60,
                     hundredths % 100);
}

}  // namespace platter::tool::io_shell
