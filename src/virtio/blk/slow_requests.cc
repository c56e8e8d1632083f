#include "virtio/blk/slow_requests.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/bytes.h"

namespace platter::virtio::blk {
namespace {

double milliseconds(io::Nanoseconds time) {
  return std::chrono::duration<double, std::milli>(time).count();
}

// Of a discard, or a write of zeroes: as it stands in the guest's memory now.
std::string describe_range(const Request& request) {
  constexpr size_t kRangeBytes = 16;
  if (request.from_driver.size() < kRangeBytes) return "";
  std::array<uint8_t, kRangeBytes> bytes;
  request.from_driver.sub(0, kRangeBytes).copy_to(bytes);
  const auto sector = base::load_little<uint64_t>(bytes, 0);
  const auto sectors = base::load_little<uint32_t>(bytes, 8);
  return fmt::format(" of {} bytes at {}", sectors * uint64_t{kSectorBytes}, sector * kSectorBytes);
}

std::string describe(const Request& request) {
  const uint64_t offset = request.sector * kSectorBytes;
  switch (request.kind) {
    case Kind::kReadWrite:
      return fmt::format("{} of {} bytes at {}", request.out ? "write" : "read",
                         request.out ? request.from_driver.size() : request.to_driver.size(),
                         offset);
    case Kind::kFlush: return "flush";
    case Kind::kDiscard: return "discard" + describe_range(request);
    case Kind::kWriteZeroes: return "write of zeroes" + describe_range(request);
    case Kind::kZoneAppend:
      return fmt::format("append of {} bytes to the zone at {}", request.from_driver.size(),
                         offset);
    case Kind::kZoneReport: return "zone report";
    case Kind::kZoneReset: return fmt::format("reset of the zone at {}", offset);
    case Kind::kZoneResetAll: return "reset of all zones";
    case Kind::kZoneOpen:
    case Kind::kZoneClose:
    case Kind::kZoneFinish: return fmt::format("change of the zone at {}", offset);
    case Kind::kGetId:
    case Kind::kScsiCommand: break;
  }
  return "request";
}

}  // namespace

void SlowRequests::report(const Request& request, const Times& times, io::Nanoseconds now) {
  const auto left_out = lines_.admit(now);
  if (!left_out) return;
  const auto rest = std::max(times.total - times.in_queue - times.in_files, io::Nanoseconds(0));
  std::string line = fmt::format(
      "{}: slow request: {} took {:.1f} ms: {:.1f} ms in the queue, {:.1f} ms in the block layer, "
      "{:.1f} ms in files",
      name_, describe(request), milliseconds(times.total), milliseconds(times.in_queue),
      milliseconds(rest), milliseconds(times.in_files));
  if (*left_out != 0) line += fmt::format(" ({} more before it)", *left_out);
  log_.warning(line);
}

}  // namespace platter::virtio::blk
