#include "inspect/isolated.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <new>

#include "base/try.h"
#include "fmt/format.h"
#include "inspect/inspect.h"
#include "inspect/sandbox.h"
#include "inspect/source.h"

namespace platter::inspect {
namespace {

using Clock = std::chrono::steady_clock;

// A report has at most this many bytes: its lists and texts are bounded.
constexpr size_t kMaxReportBytes = size_t{8} << 20;
// What crosses the pipe: one of these, then JSON or an error's message.
constexpr char kReportMark = 'R';
constexpr char kErrorMark = 'E';

class Descriptor {
 public:
  explicit Descriptor(int descriptor) : descriptor_(descriptor) {}
  ~Descriptor() { reset(); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return descriptor_; }
  void reset() {
    if (descriptor_ >= 0) close(descriptor_);
    descriptor_ = -1;
  }

 private:
  int descriptor_;
};

// ---- The inspecting process

// Nobody is left to tell of a failure to write.
void write_all(int descriptor, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(descriptor, text.data(), text.size());
    if (written < 0 && errno != EINTR) return;
    if (written > 0) text.remove_prefix(static_cast<size_t>(written));
  }
}

Result<std::string> inspect_here(const IsolatedInspection& inspection, int output,
                                 const SandboxLimits& limits) {
  PLATTER_TRY(enter_sandbox(inspection.descriptor, output, limits));
  FileSource source(inspection.descriptor, inspection.file_size);
  PLATTER_ASSIGN(const auto report, inspect_image(source, inspection.format));
  return report_to_json(report).dump();
}

[[noreturn]] void run_child(const IsolatedInspection& inspection, int output,
                            const SandboxLimits& limits) {
  try {
    const auto report = inspect_here(inspection, output, limits);
    write_all(output, report ? kReportMark + *report : kErrorMark + report.error().message());
  } catch (const std::bad_alloc&) {
    write_all(output, "EIt needs too much memory");  // kErrorMark first
  }
  _exit(0);
}

// ---- The process that asked

uint64_t mapped_bytes() {
  std::ifstream file("/proc/self/statm");
  uint64_t pages = 0;
  file >> pages;  // stays 0 where there is no such file
  return pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

// What the child writes, to its end; an error if that takes too long or is too much.
Result<std::string> read_all(int descriptor, Clock::time_point deadline) {
  std::string text;
  char buffer[1 << 14];
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd ready = {descriptor, POLLIN, 0};
    const int polled = left > 0 ? poll(&ready, 1, static_cast<int>(left)) : 0;
    if (polled < 0 && errno == EINTR) continue;
    if (polled < 0) return std::unexpected(Error::from_errno(errno, "poll"));
    if (polled == 0) return fail(ETIMEDOUT, "It took too long to inspect");
    const ssize_t got = read(descriptor, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return std::unexpected(Error::from_errno(errno, "read"));
    if (got == 0) return text;
    text.append(buffer, static_cast<size_t>(got));
    if (text.size() > kMaxReportBytes) {
      return fail(EPROTO, "The inspecting process gave an endless report");
    }
  }
}

Result<void> judge_end(int status) {
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  if (!WIFSIGNALED(status)) return fail(EPROTO, "The inspecting process failed");
  const int signal = WTERMSIG(status);
  if (signal == SIGKILL || signal == SIGXCPU) {
    return fail(ETIMEDOUT, "It took too long to inspect: the inspecting process was killed");
  }
  return fail(EPROTO, fmt::format("The inspecting process was killed: {}{}", strsignal(signal),
                                  signal == SIGSYS ? " (it did what the sandbox forbids)" : ""));
}

}  // namespace

Result<Report> inspect_isolated(const IsolatedInspection& inspection) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return std::unexpected(Error::from_errno(errno, "pipe2"));
  Descriptor reading(ends[0]);
  Descriptor writing(ends[1]);
  const SandboxLimits limits = {.mapped_bytes = mapped_bytes()};
  const auto deadline = Clock::now() + std::chrono::seconds(inspection.timeout_seconds);
  const pid_t child = fork();
  if (child < 0) return std::unexpected(Error::from_errno(errno, "fork"));
  if (child == 0) run_child(inspection, writing.get(), limits);
  writing.reset();

  auto text = read_all(reading.get(), deadline);
  if (!text) kill(child, SIGKILL);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!text) return std::unexpected(std::move(text).error());
  PLATTER_TRY(judge_end(status));
  if (text->starts_with(kErrorMark)) return fail(EIO, printable(bounded_text(text->substr(1))));
  if (!text->starts_with(kReportMark)) {
    return fail(EPROTO, "The inspecting process gave no report");
  }
  PLATTER_ASSIGN(const auto json, base::Json::parse(std::string_view(*text).substr(1)));
  return report_from_json(json);
}

}  // namespace platter::inspect
