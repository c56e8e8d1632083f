// EventStream: what a command does, told to another program: a JSON object a line, on a descriptor
// that the caller chose (--progress-fd).
//
//   {"event": "progress", "done": 1048576, "total": 4194304, "percent": 25.0, "seconds": 0.5,
//    "bytes-per-second": 2097152, "seconds-left": 1.5}
//   {"event": "warning", "message": "..."}      {"event": "error", "message": "..."}
//   {"event": "finished", "status": 0}
//
// Progress comes at most ten times a second, always for the last byte, and is left out while the
// reader does not keep up; the others are waited for. A reader that went away is no error.
// docs/platter.md promises the members.
//
// Thread-safety: may be called from any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <string_view>

#include "platter/error.h"

namespace platter::tool {

class EventStream {
 public:
  EventStream() = default;  // closed: events go nowhere
  // EBADF: not open for writing.
  Result<void> open(int descriptor);
  bool is_open() const { return descriptor_ >= 0; }

  void progress(uint64_t done, uint64_t total);
  void error(std::string_view message);
  void warning(std::string_view message);
  void finished(int status);

 private:
  using Clock = std::chrono::steady_clock;
  void message(std::string_view event, std::string_view text);
  void write_line_locked(std::string_view line, bool wait);

  int descriptor_ = -1;
  const Clock::time_point start_ = Clock::now();
  std::mutex mutex_;
  Clock::time_point next_progress_ = start_;
  uint64_t last_done_ = 0;
  bool complete_ = false;  // the last byte has been reported
};

// What a --progress-fd says.
Result<int> parse_descriptor(std::string_view text);

}  // namespace platter::tool
