#include "base/size.h"

#include <fmt/format.h>

#include <cctype>
#include <charconv>
#include <cstdio>
#include <optional>

#include "base/math.h"
#include "base/try.h"

namespace platter::base {
namespace {

using Wide = unsigned __int128;

// Digits of a fraction that are looked at: 10^18 times the largest unit fits 128 bits.
constexpr size_t kMaxFractionDigits = 18;

std::optional<uint64_t> unit_of(char suffix) {
  constexpr std::string_view kSuffixes = "bkmgtpe";
  size_t index =
      kSuffixes.find(static_cast<char>(std::tolower(static_cast<unsigned char>(suffix))));
  if (suffix == '\0' || index == std::string_view::npos) return std::nullopt;
  return uint64_t{1} << (10 * index);
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::unexpected<Error> malformed(std::string_view text) {
  return fail(EINVAL, fmt::format("'{}' is not a size", text));
}

std::unexpected<Error> too_large(std::string_view text) {
  return fail(ERANGE, fmt::format("The size '{}' is too large", text));
}

// Takes leading digits off `rest`. EINVAL if there are none.
std::errc take_number(std::string_view& rest, int radix, uint64_t& value) {
  auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), value, radix);
  rest.remove_prefix(static_cast<size_t>(end - rest.data()));
  return error;
}

// The part of `unit` that the digits after the decimal point say, to the nearest byte.
uint64_t fraction_of(std::string_view digits, uint64_t unit) {
  Wide numerator = 0;
  Wide denominator = 1;
  for (char digit : digits.substr(0, kMaxFractionDigits)) {
    numerator = numerator * 10 + static_cast<unsigned>(digit - '0');
    denominator *= 10;
  }
  return static_cast<uint64_t>((2 * numerator * unit + denominator) / (2 * denominator));
}

}  // namespace

Result<uint64_t> parse_wide_size(std::string_view text, char default_suffix) {
  std::string_view rest = text;
  while (!rest.empty() && std::isspace(static_cast<unsigned char>(rest.front()))) {
    rest.remove_prefix(1);
  }
  if (!rest.empty() && rest.front() == '+') rest.remove_prefix(1);
  bool hexadecimal = rest.size() > 2 && rest[0] == '0' && (rest[1] == 'x' || rest[1] == 'X');
  if (hexadecimal) rest.remove_prefix(2);

  uint64_t whole = 0;
  std::errc error = take_number(rest, hexadecimal ? 16 : 10, whole);
  if (error == std::errc::invalid_argument) return malformed(text);
  bool overflow = error != std::errc{};

  std::string_view fraction;
  if (!hexadecimal && !rest.empty() && rest.front() == '.') {
    rest.remove_prefix(1);
    size_t digits = 0;
    while (digits < rest.size() && is_digit(rest[digits])) ++digits;
    fraction = rest.substr(0, digits);
    rest.remove_prefix(digits);
  }

  char suffix = default_suffix;
  if (!rest.empty()) {
    suffix = rest.front();
    rest.remove_prefix(1);
  }
  std::optional<uint64_t> unit = unit_of(suffix);
  if (!unit || !rest.empty()) return malformed(text);
  if (*unit == 1 && fraction.find_first_not_of('0') != std::string_view::npos) {
    return malformed(text);
  }

  if (overflow) return too_large(text);
  std::optional<uint64_t> bytes = checked_mul(whole, *unit);
  if (bytes) bytes = checked_add(*bytes, fraction_of(fraction, *unit));
  if (!bytes) return too_large(text);
  return *bytes;
}

Result<uint64_t> parse_size(std::string_view text, char default_suffix) {
  PLATTER_ASSIGN(uint64_t bytes, parse_wide_size(text, default_suffix));
  if (bytes > kMaxSize) return too_large(text);
  return bytes;
}

std::string format_size(uint64_t bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  size_t unit = 0;
  while (unit + 1 < std::size(kUnits) && bytes >> (10 * unit) >= 1000) ++unit;
  double value = static_cast<double>(bytes) / static_cast<double>(uint64_t{1} << (10 * unit));
  return fmt::format("{:.3g} {}", value, kUnits[unit]);
}

}  // namespace platter::base
