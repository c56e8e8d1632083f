// A log belongs to a Runtime; there is no global one. Lines go to a sink that the embedder chooses.
// Thread-safe.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace platter::base {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

class Log {
 public:
  using Sink = std::function<void(LogLevel, std::string_view line)>;

  // Lines below `threshold` are dropped. The default sink drops everything.
  explicit Log(Sink sink = {}, LogLevel threshold = LogLevel::kInfo)
      : sink_(std::move(sink)), threshold_(threshold) {}

  void write(LogLevel level, std::string_view line) const {
    if (sink_ && level >= threshold_) sink_(level, line);
  }
  void info(std::string_view line) const { write(LogLevel::kInfo, line); }
  void warning(std::string_view line) const { write(LogLevel::kWarning, line); }
  void error(std::string_view line) const { write(LogLevel::kError, line); }

 private:
  Sink sink_;
  LogLevel threshold_;
};

}  // namespace platter::base
