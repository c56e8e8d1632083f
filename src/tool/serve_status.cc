#include "tool/serve_status.h"

#include <fmt/format.h>

namespace platter::tool {
namespace {

constexpr double kMega = 1e6;
constexpr const char* kClearLine = "\r\033[K";

double seconds(io::Nanoseconds time) { return std::chrono::duration<double>(time).count(); }

std::string rate(double a_second) {
  if (a_second >= kMega) return fmt::format("{:.2f}M", a_second / kMega);
  return a_second >= 1e3 ? fmt::format("{:.1f}k", a_second / 1e3) : fmt::format("{:.0f}", a_second);
}

std::string describe(const char* what, const block::Accounting& before,
                     const block::Accounting& now, double time) {
  const uint64_t operations = now.operations - before.operations;
  std::string text =
      fmt::format("{} {}/s {:.1f} MB/s", what, rate(static_cast<double>(operations) / time),
                  static_cast<double>(now.bytes - before.bytes) / kMega / time);
  if (operations != 0) {
    const auto each = static_cast<double>(now.total_time_ns - before.total_time_ns) /
                      static_cast<double>(operations);
    text += fmt::format(" {:.0f} us", each / 1e3);
  }
  return text;
}

}  // namespace

std::string describe_activity(bool connected, const block::BackendStatistics& before,
                              const block::BackendStatistics& now, io::Nanoseconds between) {
  if (!connected) return "waiting for a machine";
  const double time = seconds(between);
  std::string text = describe("read", before.read, now.read, time) + "  " +
                     describe("write", before.write, now.write, time);
  if (now.flush.operations != before.flush.operations) {
    const auto flushes = static_cast<double>(now.flush.operations - before.flush.operations);
    text += fmt::format("  {} flushes/s", rate(flushes / time));
  }
  const auto failures = [](const block::BackendStatistics& s) {
    return s.read.failed + s.write.failed + s.zero.failed + s.discard.failed + s.flush.failed;
  };
  if (failures(now) != 0) text += fmt::format("  {} failed", failures(now));
  return text;
}

ServeStatus::~ServeStatus() {
  if (drawn_) console_.note("\n");
}

void ServeStatus::draw(bool connected, const block::BackendStatistics& now,
                       io::Nanoseconds since_last) {
  console_.note(kClearLine + describe_activity(connected, last_, now, since_last));
  last_ = now;
  drawn_ = true;
}

}  // namespace platter::tool
