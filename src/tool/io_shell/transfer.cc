#include "tool/io_shell/transfer.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <numeric>

#include "base/try.h"
#include "fmt/format.h"
#include "tool/io_shell/numbers.h"

namespace platter::tool::io_shell {

static constexpr size_t kMisalignment = 16;
static constexpr uint64_t kSectorBytes = 512;

Result<TransferBuffer> TransferBuffer::make(const Shell& shell, std::vector<uint64_t> sizes) {
  TransferBuffer buffer;
  buffer.skip_ = shell.options().misalign ? kMisalignment : 0;
  const uint64_t total = std::accumulate(sizes.begin(), sizes.end(), uint64_t{0});
  try {
    buffer.memory_ = io::AlignedBuffer(buffer.skip_ + total);
  } catch (const std::bad_alloc&) {
    return fail_errno(ENOMEM);
  }
  uint8_t* at = buffer.memory_.data() + buffer.skip_;
  for (const uint64_t size : sizes) {
    buffer.pieces_.push_back({at, size});
    at += size;
  }
  return buffer;
}

ReportStyle report_style(const Words& words) {
  if (words.has('q')) return ReportStyle::kQuiet;
  return words.has('C') ? ReportStyle::kCsv : ReportStyle::kFull;
}

Result<Ranges> parse_ranges(const std::vector<std::string>& operands) {
  Ranges ranges;
  PLATTER_ASSIGN(ranges.offset, parse_bytes(operands[0]));
  for (size_t i = 1; i < operands.size(); ++i) {
    PLATTER_ASSIGN(const uint64_t length, parse_bytes(operands[i]));
    if (length > block::kMaxRequest) {
      return fail(EINVAL, fmt::format("Argument '{}' exceeds maximum size {}", operands[i],
                                      block::kMaxRequest));
    }
    if (length > block::kMaxRequest - ranges.total) {
      return fail(EINVAL, fmt::format("The total number of bytes exceed the maximum size {}",
                                      block::kMaxRequest));
    }
    ranges.lengths.push_back(length);
    ranges.total += length;
  }
  return ranges;
}

Result<Ranges> parse_range(const std::vector<std::string>& operands) {
  Ranges range;
  PLATTER_ASSIGN(range.offset, parse_bytes(operands[0]));
  PLATTER_ASSIGN(range.total, parse_bytes(operands[1]));
  range.lengths = {range.total};
  return range;
}

Result<std::optional<uint8_t>> pattern_option(const Words& words) {
  const auto text = words.value('P');
  if (!text) return std::optional<uint8_t>();
  PLATTER_ASSIGN(const uint8_t pattern, parse_pattern(*text));
  return std::optional(pattern);
}

std::optional<std::string> unaligned_line(const Ranges& range) {
  for (const auto& [what, value] :
       {std::pair("offset", range.offset), std::pair("count", range.total)}) {
    if (value % kSectorBytes != 0)
      return fmt::format("{} is not a sector-aligned value for '{}'", value, what);
  }
  return std::nullopt;
}

bool is_filled(std::span<const uint8_t> bytes, uint8_t pattern) {
  return bytes.empty() || (bytes[0] == pattern &&
                           std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

std::string mismatch_line(uint64_t offset, uint64_t bytes) {
  return fmt::format("Pattern verification failed at offset {}, {} bytes", offset, bytes);
}

std::string failure_line(std::string_view operation, const Error& failure) {
  return fmt::format("{} failed: {}", operation, std::strerror(failure.code()));
}

}  // namespace platter::tool::io_shell
