// Sizes as people type and read them: "64k", "1.5G", "0x1000"; "1 GiB".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "platter/error.h"

namespace platter::base {

// The largest size that is accepted anywhere: what a signed 64-bit offset can hold.
inline constexpr uint64_t kMaxSize = INT64_MAX;

// A decimal number, possibly with a fraction, or a hexadecimal integer (0x...), then an optional
// suffix of b k M G T P E (powers of 1024; either case). `default_suffix` is the unit of a bare
// number. A fraction needs a unit above bytes and is rounded to the nearest byte. Blanks and a plus
// sign may come first, nothing may follow. The error's code tells the kinds of failure apart:
// ERANGE when the value exceeds kMaxSize, EINVAL else.
Result<uint64_t> parse_size(std::string_view text, char default_suffix = 'b');
// The same up to 2^64 - 1: what option values of type size may be before their range is checked.
Result<uint64_t> parse_wide_size(std::string_view text, char default_suffix = 'b');

// "1 GiB", "196 KiB", "1.5 MiB", "512 B": three significant digits, as qemu-img prints sizes. The
// next unit starts at 1000 of the one below ("0.977 MiB" is 1000 KiB).
std::string format_size(uint64_t bytes);

}  // namespace platter::base
