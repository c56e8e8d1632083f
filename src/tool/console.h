// Console: what a command says to the person or script that ran it.
//
// Results go to standard output through a buffer (flushed by finish(), and before anything is
// written to standard error, so that a terminal shows both in order). Errors go to standard error,
// one line each, behind the program's name: "qemu-img: Could not open 'a': ...".
//
// Thread-safety: any thread may call any of them. What one call prints is not torn.
#pragma once

#include <mutex>
#include <string>
#include <string_view>

#include "platter/error.h"
#include "tool/events.h"

namespace platter::tool {

class Console {
 public:
  explicit Console(std::string program_name) : program_name_(std::move(program_name)) {}
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

  const std::string& program_name() const { return program_name_; }

  void print(std::string_view text);
  // Writes what is buffered.
  void flush();
  // Flushes; false, and an error has been printed, if standard output did not take everything (a
  // full disk). A reader that went away (EPIPE) is reported in the same way.
  bool finish();

  void error(std::string_view message);
  void error(const Error& failure);  // and its hint, on lines of their own
  void warning(std::string_view message);
  // Errors and warnings go there, too; open only where --progress-fd asked for it.
  EventStream& events() { return events_; }
  // As it is, to standard error, without the program's name.
  void note(std::string_view text);

 private:
  static constexpr size_t kBufferSize = size_t{1} << 16;

  void flush_locked();
  void write_error_locked(std::string_view text);

  std::string program_name_;
  EventStream events_;
  std::mutex mutex_;
  std::string buffer_;
  int write_errno_ = 0;
};

}  // namespace platter::tool
