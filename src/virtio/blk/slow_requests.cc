#include "virtio/blk/slow_requests.h"

#include <fmt/format.h>

#include <algorithm>

namespace platter::virtio::blk {
namespace {

double milliseconds(io::Nanoseconds time) {
  return std::chrono::duration<double, std::milli>(time).count();
}

std::string describe(const Request& request) {
  const uint64_t offset = request.sector * kSectorBytes;
  switch (request.kind) {
    case Kind::kReadWrite:
      return fmt::format("{} of {} bytes at {}", request.out ? "write" : "read",
                         request.out ? request.from_driver.size() : request.to_driver.size(),
                         offset);
    case Kind::kFlush: return "flush";
    case Kind::kDiscard: return "discard";
    case Kind::kWriteZeroes: return "write of zeroes";
    case Kind::kGetId:
    case Kind::kScsiCommand: break;
  }
  return "request";
}

}  // namespace

void SlowRequests::report(const Request& request, const Times& times, io::Nanoseconds now) {
  const int64_t second = std::chrono::duration_cast<std::chrono::seconds>(now).count();
  int64_t current = second_.load(std::memory_order_relaxed);
  if (current != second && second_.compare_exchange_strong(current, second))
    lines_.store(0, std::memory_order_relaxed);
  if (lines_.fetch_add(1, std::memory_order_relaxed) >= kLinesASecond) {
    left_out_.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  const auto rest = std::max(times.total - times.in_queue - times.in_files, io::Nanoseconds(0));
  std::string line = fmt::format(
      "{}: slow request: {} took {:.1f} ms: {:.1f} ms in the queue, {:.1f} ms in the block layer, "
      "{:.1f} ms in files",
      name_, describe(request), milliseconds(times.total), milliseconds(times.in_queue),
      milliseconds(rest), milliseconds(times.in_files));
  if (const uint64_t left_out = left_out_.exchange(0, std::memory_order_relaxed); left_out != 0)
    line += fmt::format(" ({} more before it)", left_out);
  log_.warning(line);
}

}  // namespace platter::virtio::blk
