#include "tool/io_shell/report.h"

#include <algorithm>
#include <iterator>

#include "fmt/format.h"
#include "tool/io_shell/numbers.h"

namespace platter::tool::io_shell {

std::string report_text(const Report& report) {
  if (report.style == ReportStyle::kQuiet) return {};
  const double seconds = static_cast<double>(std::max<uint64_t>(report.elapsed_ns, 1)) / 1e9;
  const double rate = static_cast<double>(report.bytes) / seconds;
  const double operations = 1 / seconds;
  if (report.style == ReportStyle::kCsv) {
    return fmt::format("{},1,{},{:.3f},{:.3f}\n", report.bytes,
                       format_elapsed(report.elapsed_ns, true), rate, operations);
  }
  return fmt::format("{} {}/{} bytes at offset {}\n{}, 1 ops; {} ({}/sec and {:.4f} ops/sec)\n",
                     report.operation, report.bytes, report.bytes, report.offset,
                     format_bytes(static_cast<double>(report.bytes)),
                     format_elapsed(report.elapsed_ns, false), format_bytes(rate), operations);
}

std::string hex_dump(uint64_t offset, std::span<const uint8_t> bytes) {
  constexpr size_t kRow = 16;
  std::string out;
  out.reserve((bytes.size() / kRow + 1) * 80);
  while (!bytes.empty()) {
    const auto row = bytes.first(std::min(kRow, bytes.size()));
    fmt::format_to(std::back_inserter(out), "{:08x}:  ", offset);
    for (const uint8_t byte : row) fmt::format_to(std::back_inserter(out), "{:02x} ", byte);
    out += ' ';
    for (const uint8_t byte : row) {
      const bool shown = (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') ||
                         (byte >= 'a' && byte <= 'z');
      out += shown ? static_cast<char>(byte) : '.';
    }
    out += '\n';
    offset += row.size();
    bytes = bytes.subspan(row.size());
  }
  return out;
}

}  // namespace platter::tool::io_shell
