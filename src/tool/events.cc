#include "tool/events.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <string>

#include "base/json.h"
#include "base/try.h"
#include "fmt/format.h"

namespace platter::tool {
namespace {

constexpr std::chrono::milliseconds kProgressInterval{100};

}  // namespace

Result<int> parse_descriptor(std::string_view text) {
  int descriptor = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), descriptor);
  if (error != std::errc() || end != text.data() + text.size() || descriptor < 0) {
    return fail(EINVAL,
                "--progress-fd is the number of a descriptor, not '" + std::string(text) + "'");
  }
  return descriptor;
}

Result<void> EventStream::open(int descriptor) {
  const int flags = fcntl(descriptor, F_GETFL);
  if (flags < 0 || (flags & O_ACCMODE) == O_RDONLY) {
    return fail(EBADF, fmt::format("--progress-fd: {} is not open for writing", descriptor));
  }
  descriptor_ = descriptor;
  return {};
}

void EventStream::progress(uint64_t done, uint64_t total) {
  if (!is_open()) return;
  std::lock_guard lock(mutex_);
  const auto now = Clock::now();
  const bool last = done >= total;
  // Reactors report in any order.
  if (complete_ || done < last_done_ || (now < next_progress_ && !last)) return;
  next_progress_ = now + kProgressInterval;
  last_done_ = done;
  complete_ = last;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const double rate = seconds > 0 ? static_cast<double>(done) / seconds : 0;
  auto line = base::Json::object();
  line.add("event", "progress");
  line.add("done", done);
  line.add("total", total);
  line.add("percent",
           total == 0 ? 100.0 : 100.0 * static_cast<double>(done) / static_cast<double>(total));
  line.add("seconds", seconds);
  line.add("bytes-per-second", static_cast<uint64_t>(rate));
  // Not known before anything is done.
  line.add("seconds-left",
           rate > 0 ? base::Json(static_cast<double>(total - done) / rate) : base::Json());
  write_line_locked(line.dump() + "\n", last);
}

void EventStream::message(std::string_view event, std::string_view text) {
  if (!is_open()) return;
  auto line = base::Json::object();
  line.add("event", event);
  line.add("message", text);
  std::lock_guard lock(mutex_);
  write_line_locked(line.dump() + "\n", true);
}

void EventStream::error(std::string_view text) { message("error", text); }
void EventStream::warning(std::string_view text) { message("warning", text); }

void EventStream::finished(int status) {
  if (!is_open()) return;
  std::lock_guard lock(mutex_);
  write_line_locked(fmt::format("{{\"event\": \"finished\", \"status\": {}}}\n", status), true);
}

// A line of progress is short enough for a pipe to take it whole or not at all.
void EventStream::write_line_locked(std::string_view line, bool wait) {
  while (!line.empty() && descriptor_ >= 0) {
    pollfd ready = {descriptor_, POLLOUT, 0};
    const int polled = poll(&ready, 1, wait ? -1 : 0);
    if (polled == 0) return;
    const ssize_t written = polled < 0 ? -1 : write(descriptor_, line.data(), line.size());
    if (written >= 0) {
      line.remove_prefix(static_cast<size_t>(written));
      wait = true;  // what was begun is ended
    } else if (errno != EINTR && errno != EAGAIN) {
      descriptor_ = -1;  // nobody reads any more
    }
  }
}

}  // namespace platter::tool
