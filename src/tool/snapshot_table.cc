#include "tool/snapshot_table.h"

#include <ctime>

#include "base/size.h"
#include "fmt/format.h"

namespace platter::tool {
namespace {

std::string local_date(uint64_t seconds) {
  const auto when = static_cast<time_t>(seconds);
  tm local = {};
  char text[64];
  if (localtime_r(&when, &local) == nullptr) return {};
  return std::string(text, strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &local));
}

std::string clock_text(uint64_t nanoseconds) {
  const uint64_t milliseconds = nanoseconds / 1'000'000;
  const uint64_t seconds = milliseconds / 1000;
  return fmt::format("{:02}:{:02}:{:02}.{:03}", seconds / 3600, seconds / 60 % 60, seconds % 60,
                     milliseconds % 1000);
}

}  // namespace

std::string snapshot_table(std::span<const block::SnapshotInfo> snapshots) {
  constexpr std::string_view kRow = "{:<9} {:<16} {:>8}{:>20}{:>13}{:>11}\n";
  std::string out = "Snapshot list:\n";
  out += fmt::format(kRow, "ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT");
  for (const auto& snapshot : snapshots) {
    out += fmt::format(kRow, snapshot.id, snapshot.name, base::format_size(snapshot.vm_state_size),
                       local_date(snapshot.date_seconds), clock_text(snapshot.vm_clock_nanoseconds),
                       snapshot.icount ? std::to_string(*snapshot.icount) : std::string());
  }
  return out;
}

}  // namespace platter::tool
