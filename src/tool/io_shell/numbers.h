// Numbers as the shell's commands take and print them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "platter/error.h"

namespace platter::tool::io_shell {

// Bytes: what base::parse_size takes. The error's text is the line to print: "Parsing error: ...".
Result<uint64_t> parse_bytes(std::string_view text);

// A byte that fills a buffer: decimal, octal (0...) or hexadecimal (0x...). The error's text is the
// line to print.
Result<uint8_t> parse_pattern(std::string_view text);

// An integer in the same notations, of at most INT32_MAX; nothing: it is none.
std::optional<int> parse_count(std::string_view text);

// "512 bytes", "1.500 KiB", "4 GiB": three digits behind the point, or none where they are zeroes.
std::string format_bytes(double bytes);

// "00.25 sec"; from a second on, or if `fixed`, "0:01:05.20".
std::string format_elapsed(uint64_t nanoseconds, bool fixed);

}  // namespace platter::tool::io_shell
