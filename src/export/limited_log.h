// LimitedLog: a log for what peers do, in which warnings are so many a second at most: a peer that
// causes them can neither fill a disk nor hold up the others.
//
// Any reactor.
#pragma once

#include <fmt/format.h>

#include "base/line_limit.h"
#include "base/log.h"
#include "io/reactor.h"

namespace platter::exports {

class LimitedLog {
 public:
  static constexpr unsigned kLinesASecond = 10;

  // Which outlives it.
  explicit LimitedLog(const base::Log& user)
      : user_(user),
        log_([this](base::LogLevel level, std::string_view line) { pass_on(level, line); }) {}
  LimitedLog(const LimitedLog&) = delete;
  LimitedLog& operator=(const LimitedLog&) = delete;

  const base::Log& log() const { return log_; }

 private:
  void pass_on(base::LogLevel level, std::string_view line) {
    if (level < base::LogLevel::kWarning) return user_.write(level, line);
    const auto left_out = lines_.admit(io::Reactor::current()->now());
    if (!left_out) return;
    if (*left_out == 0) return user_.write(level, line);
    user_.write(level, fmt::format("{} ({} more before it)", line, *left_out));
  }

  const base::Log& user_;
  base::LineLimit lines_{kLinesASecond};
  const base::Log log_;
};

}  // namespace platter::exports
