// The memory of one transfer, and what read and write commands have in common.
#pragma once

#include <sys/uio.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "block/types.h"
#include "io/buffer.h"
#include "tool/io_shell/report.h"
#include "tool/io_shell/shell.h"
#include "tool/io_shell/words.h"

namespace platter::tool::io_shell {

inline constexpr uint8_t kDefaultPattern = 0xcd;

// Memory of `sizes`, one after the other, each a piece of its own.
class TransferBuffer {
 public:
  // ENOMEM where there is not that much.
  static Result<TransferBuffer> make(const Shell& shell, std::vector<uint64_t> sizes);

  std::span<uint8_t> bytes() const { return memory_.span().subspan(skip_); }
  // Valid while this lives and is not moved.
  io::BufferList view() const { return io::BufferList(std::span<const iovec>(pieces_)); }

 private:
  TransferBuffer() = default;
  io::AlignedBuffer memory_;
  size_t skip_ = 0;
  std::vector<iovec> pieces_;
};

class Stopwatch {
 public:
  uint64_t elapsed_ns() const {
    return static_cast<uint64_t>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start_).count());
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now();
};

// -q, -C or neither.
ReportStyle report_style(const Words& words);

// "OFFSET LENGTH...": as readv, writev, aio_read and aio_write take them. The error's text is the
// line to print.
struct Ranges {
  uint64_t offset = 0;
  std::vector<uint64_t> lengths;
  uint64_t total = 0;
};
Result<Ranges> parse_ranges(const std::vector<std::string>& operands);
// "OFFSET LENGTH": as read, write and discard take them. The same.
Result<Ranges> parse_range(const std::vector<std::string>& operands);
// -P, where it was given. The same.
Result<std::optional<uint8_t>> pattern_option(const Words& words);
// The line that says what is wrong with a range of less than whole sectors; nothing: they are.
std::optional<std::string> unaligned_line(const Ranges& range);

// Whether the bytes are all `pattern`.
bool is_filled(std::span<const uint8_t> bytes, uint8_t pattern);
std::string mismatch_line(uint64_t offset, uint64_t bytes);

// "read failed: Input/output error".
std::string failure_line(std::string_view operation, const Error& failure);

}  // namespace platter::tool::io_shell
