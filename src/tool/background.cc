#include "tool/background.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/try.h"

namespace platter::tool {
namespace {

constexpr mode_t kCreationMask = 027;

// Ends the process that was started.
[[noreturn]] void wait_for_daemon(int from_daemon) {
  char word = 0;
  ssize_t got;
  do got = read(from_daemon, &word, 1);
  while (got < 0 && errno == EINTR);
  _exit(got == 1 ? 0 : 1);
}

}  // namespace

Result<void> Background::enter() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0)
    return std::unexpected(Error::from_errno(errno, "Could not make a pipe"));
  io::Descriptor from_daemon(ends[0]);
  to_starter_.reset(ends[1]);
  const pid_t child = fork();
  if (child < 0) return std::unexpected(Error::from_errno(errno, "Could not fork"));
  if (child > 0) {
    to_starter_.reset();
    wait_for_daemon(from_daemon.get());
  }
  if (setsid() < 0) return std::unexpected(Error::from_errno(errno, "Could not begin a session"));
  umask(kCreationMask);
  return {};
}

Result<void> Background::ready() {
  if (!to_starter_) return {};
  io::Descriptor nothing(open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!nothing) return std::unexpected(Error::from_errno(errno, "Could not open '/dev/null'"));
  if (chdir("/") != 0) return std::unexpected(Error::from_errno(errno, "Could not change to '/'"));
  for (const int standard : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (dup2(nothing.get(), standard) < 0)
      return std::unexpected(Error::from_errno(errno, "Could not let go of the terminal"));
  }
  const char word = 0;
  // Nobody is left to hear that it was not heard.
  (void)!write(to_starter_.get(), &word, 1);
  to_starter_.reset();
  return {};
}

}  // namespace platter::tool
