#include "tool/console.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>

namespace platter::tool {
namespace {

// Returns 0 or the errno of the failure.
int write_all(int descriptor, std::string_view text) {
  while (!text.empty()) {
    ssize_t written = write(descriptor, text.data(), text.size());
    if (written >= 0) {
      text.remove_prefix(static_cast<size_t>(written));
    } else if (errno == EAGAIN) {
      pollfd ready = {descriptor, POLLOUT, 0};
      poll(&ready, 1, -1);
    } else if (errno != EINTR) {
      return errno;
    }
  }
  return 0;
}

}  // namespace

void Console::print(std::string_view text) {
  std::lock_guard lock(mutex_);
  buffer_ += text;
  if (buffer_.size() >= kBufferSize) flush_locked();
}

void Console::flush() {
  std::lock_guard lock(mutex_);
  flush_locked();
}

void Console::flush_locked() {
  if (write_errno_ == 0) write_errno_ = write_all(STDOUT_FILENO, buffer_);
  buffer_.clear();
}

bool Console::finish() {
  flush();
  if (write_errno_ == 0) return true;
  error(Error::from_errno(write_errno_, "Could not write to standard output"));
  return false;
}

// Nothing is left to tell of a failure to write to standard error.
void Console::write_error_locked(std::string_view text) {
  flush_locked();
  write_all(STDERR_FILENO, text);
}

void Console::error(std::string_view message) {
  events_.error(message);
  std::lock_guard lock(mutex_);
  write_error_locked(program_name_ + ": " + std::string(message) + "\n");
}

void Console::error(const Error& failure) {
  std::string text = program_name_ + ": " + failure.message() + "\n";
  if (!failure.hint().empty()) text += failure.hint() + "\n";
  events_.error(failure.message());
  std::lock_guard lock(mutex_);
  write_error_locked(text);
}

void Console::warning(std::string_view message) {
  events_.warning(message);
  std::lock_guard lock(mutex_);
  write_error_locked(program_name_ + ": warning: " + std::string(message) + "\n");
}

void Console::note(std::string_view text) {
  std::lock_guard lock(mutex_);
  write_error_locked(text);
}

}  // namespace platter::tool
