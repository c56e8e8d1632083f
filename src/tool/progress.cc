#include "tool/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>

#include "base/size.h"

namespace platter::tool {
namespace {

constexpr int64_t kDrawIntervalNs = 100'000'000;
// Work that takes less is over before a bar could be read.
constexpr int64_t kFirstDrawNs = 250'000'000;
constexpr unsigned kDefaultColumns = 80;
constexpr unsigned kMinBarWidth = 10;

unsigned terminal_columns() {
  winsize size = {};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return kDefaultColumns;
  return size.ws_col;
}

double percent_of(uint64_t done, uint64_t total) {
  return total == 0 ? 100.0 : 100.0 * static_cast<double>(done) / static_cast<double>(total);
}

std::string duration_text(double seconds) {
  auto whole = static_cast<uint64_t>(seconds + 0.5);
  if (whole >= 3600)
    return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
  return fmt::format("{}:{:02}", whole / 60, whole % 60);
}

}  // namespace

ProgressStyle choose_progress_style(const Invocation& invocation) {
  const ProgressStyle nothing =
      invocation.console.events().is_open() ? ProgressStyle::kSilent : ProgressStyle::kNone;
  if (invocation.has("q")) return nothing;
  const bool asked = invocation.has("p");
  if (isatty(STDOUT_FILENO) != 0 && isatty(STDERR_FILENO) != 0 &&
      (asked || invocation.dialect == Dialect::kPlatter)) {
    return ProgressStyle::kBar;
  }
  return asked ? ProgressStyle::kPercent : nothing;
}

std::string progress_bar_line(uint64_t done, uint64_t total, double seconds, unsigned columns) {
  std::string head = fmt::format("{:3.0f}% ", percent_of(done, total));
  std::string tail = fmt::format(" {} of {}", base::format_size(done), base::format_size(total));
  if (seconds > 0 && done != 0) {
    double rate = static_cast<double>(done) / seconds;
    tail += fmt::format(", {}/s", base::format_size(static_cast<uint64_t>(rate)));
    tail += done == total
                ? ", took " + duration_text(seconds)
                : ", " + duration_text(static_cast<double>(total - done) / rate) + " left";
  }
  // The last column stays free: a terminal may wrap when it is written to.
  const size_t text = head.size() + tail.size() + 3;
  if (columns < text + kMinBarWidth) {
    std::string line = head + tail;
    return line.substr(0, columns > 1 ? columns - 1 : 0);
  }
  const size_t width = columns - text;
  auto filled =
      total == 0
          ? width
          : static_cast<size_t>(static_cast<double>(width) * percent_of(done, total) / 100.0);
  filled = std::min(filled, width);
  std::string bar(filled, '=');
  if (filled != 0 && filled < width) bar.back() = '>';
  bar.resize(width, ' ');
  return head + "[" + bar + "]" + tail;
}

Progress::Progress(Console& console, ProgressStyle style, double step_percent)
    : console_(console),
      style_(style),
      step_percent_(step_percent),
      next_draw_ns_(style == ProgressStyle::kBar ? kFirstDrawNs : 0) {}

Progress::~Progress() { finish(); }

void Progress::update(uint64_t done, uint64_t total) {
  // Two reactors may report in either order.
  uint64_t before = done_.load(std::memory_order_relaxed);
  while (before < done && !done_.compare_exchange_weak(before, done, std::memory_order_relaxed)) {
  }
  total_.store(total, std::memory_order_relaxed);
  console_.events().progress(done_.load(std::memory_order_relaxed), total);
  if (style_ == ProgressStyle::kNone || style_ == ProgressStyle::kSilent) return;
  if (style_ == ProgressStyle::kBar) {
    int64_t now = std::chrono::nanoseconds(Clock::now() - start_).count();
    int64_t due = next_draw_ns_.load(std::memory_order_relaxed);
    if (now < due || !next_draw_ns_.compare_exchange_strong(due, now + kDrawIntervalNs)) return;
  }
  std::lock_guard lock(mutex_);
  if (finished_) return;
  if (style_ == ProgressStyle::kBar) {
    draw_bar(done_, total);
  } else {
    print_percent(percent_of(done_, total));
  }
}

void Progress::report() {
  uint64_t total = total_.load(std::memory_order_relaxed);
  double percent = total == 0 ? 0.0 : percent_of(done_.load(std::memory_order_relaxed), total);
  console_.note(fmt::format("    ({:3.2f}/100%)\n", percent));
}

void Progress::complete() {
  console_.events().progress(total_.load(), total_.load());
  std::lock_guard lock(mutex_);
  if (style_ == ProgressStyle::kPercent) print_percent(100.0);
  if (style_ == ProgressStyle::kBar && drawn_) draw_bar(total_.load(), total_.load());
}

void Progress::hide() {
  console_.flush();
  std::lock_guard lock(mutex_);
  if (drawn_) clear_bar();
}

void Progress::finish() {
  std::lock_guard lock(mutex_);
  if (finished_) return;
  finished_ = true;
  if (style_ == ProgressStyle::kPercent) console_.print("\n");
  if (drawn_) console_.note("\n");
}

void Progress::print_percent(double percent) {
  if (percent < 100.0 && printed_percent_ >= 0 && percent < printed_percent_ + step_percent_)
    return;
  printed_percent_ = percent;
  console_.print(fmt::format("    ({:3.2f}/100%)\r", percent));
  console_.flush();
}

void Progress::draw_bar(uint64_t done, uint64_t total) {
  double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
  // One write: overwrite the old line, then erase what may be left of it.
  console_.note("\r" + progress_bar_line(done, total, seconds, terminal_columns()) + "\x1b[K");
  drawn_ = true;
}

void Progress::clear_bar() {
  console_.note("\r\x1b[K");
  drawn_ = false;
}

}  // namespace platter::tool
