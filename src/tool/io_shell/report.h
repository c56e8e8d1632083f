// What a request that has ended looks like on the screen.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace platter::tool::io_shell {

enum class ReportStyle { kFull, kCsv, kQuiet };

struct Report {
  std::string_view operation;  // "read", "wrote", "discard"
  uint64_t offset = 0;
  uint64_t bytes = 0;
  uint64_t elapsed_ns = 0;
  ReportStyle style = ReportStyle::kFull;
};

// With its line ends; empty where it is to be quiet.
std::string report_text(const Report& report);

// Sixteen bytes a line: the offset, the bytes, and those of them that are letters or digits.
std::string hex_dump(uint64_t offset, std::span<const uint8_t> bytes);

}  // namespace platter::tool::io_shell
