// flush, truncate, sleep, sigraise, abort, quit, help.
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "base/try.h"
#include "fmt/format.h"
#include "tool/arguments.h"
#include "tool/io_shell/numbers.h"
#include "tool/io_shell/shell.h"
#include "tool/io_shell/words.h"

namespace platter::tool::io_shell {

extern const IoCommand kAbort, kFlush, kHelp, kQuit, kSigraise, kSleep, kTruncate;

namespace {

bool run_flush(Shell& shell, const std::vector<std::string>&) {
  auto done = shell.wait(shell.backend().flush());
  if (done) return true;
  return shell.fail_error(std::move(done).error().with_context("flush failed"));
}

// The backend that requests use has no permission to resize: one that has it lives for this long.
io::Task<Result<void>> resize(Session& session, block::Node& node, uint64_t size,
                              block::Preallocation preallocation) {
  PLATTER_CO_ASSIGN(auto backend, co_await session.graph().attach(
                                      node, block::Permission::kResize | block::Permission::kWrite,
                                      block::kAllPermissions));
  auto resized = co_await backend->resize(size, preallocation, /*exact=*/false);
  auto closed = co_await backend->close();
  co_return resized ? std::move(closed) : std::move(resized);
}

bool run_truncate(Shell& shell, const std::vector<std::string>& line) {
  auto words = Words::parse(line, "m:");
  if (!words) return shell.fail_words(kTruncate, words.error());
  auto preallocation = parse_preallocation(words->value('m').value_or("off"));
  if (!preallocation) return shell.fail_error(preallocation.error());
  if (words->operands().empty()) return shell.fail_usage(kTruncate);
  auto size = parse_bytes(words->operands()[0]);
  if (!size) return shell.fail_out(size.error().message());
  auto done = shell.wait(resize(shell.session(), shell.image()->node(), *size, *preallocation));
  return done ? true : shell.fail_error(done.error());
}

bool run_sleep(Shell& shell, const std::vector<std::string>& words) {
  auto milliseconds = parse_count(words[1]);
  if (!milliseconds) return shell.fail_out(words[1] + " is not a valid number");
  shell.session().console().flush();
  std::this_thread::sleep_for(std::chrono::milliseconds(*milliseconds));
  return true;
}

// Signals are blocked in this thread: it lets this one through, as it came.
void raise_here(int signal) {
  sigset_t only;
  sigset_t before;
  sigemptyset(&only);
  sigaddset(&only, signal);
  pthread_sigmask(SIG_UNBLOCK, &only, &before);
  std::raise(signal);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

bool run_sigraise(Shell& shell, const std::vector<std::string>& words) {
  auto signal = parse_bytes(words[1]);
  if (!signal) return shell.fail_out(signal.error().message());
  if (*signal > static_cast<uint64_t>(SIGRTMAX)) {
    return shell.fail_out(
        fmt::format("signal argument '{}' is too large to be a valid signal", words[1]));
  }
  shell.session().console().flush();
  if (*signal != 0) raise_here(static_cast<int>(*signal));
  return true;
}

bool run_abort(Shell& shell, const std::vector<std::string>&) {
  shell.session().console().flush();
  std::abort();
}

bool run_quit(Shell& shell, const std::vector<std::string>&) {
  shell.quit();
  return true;
}

bool run_help(Shell& shell, const std::vector<std::string>& words) {
  if (words.size() == 1) {
    std::string out;
    for (const auto* command : all_io_commands()) out += usage_line(*command);
    shell.print(out + "\nUse 'help commandname' for extended help.\n");
    return true;
  }
  const auto* command = find_io_command(words[1]);
  if (command == nullptr) return shell.fail_out(fmt::format("command {} not found", words[1]));
  shell.print(usage_line(*command, words[1]) + std::string(command->help));
  return true;
}

}  // namespace

const IoCommand kFlush = {
    .name = "flush",
    .alias = "f",
    .summary = "flush all in-core file state to disk",
    .run = run_flush,
};

const IoCommand kTruncate = {
    .name = "truncate",
    .alias = "t",
    .min_arguments = 1,
    .max_arguments = 3,
    .access = Access::kWrite,
    .arguments = "[-m prealloc_mode] off",
    .summary = "truncates the current file at the given offset",
    .run = run_truncate,
};

const IoCommand kSleep = {
    .name = "sleep",
    .min_arguments = 1,
    .max_arguments = 1,
    .needs_image = false,
    .summary = "waits for the given value in milliseconds",
    .run = run_sleep,
};

const IoCommand kSigraise = {
    .name = "sigraise",
    .min_arguments = 1,
    .max_arguments = 1,
    .needs_image = false,
    .arguments = "signal",
    .summary = "raises a signal",
    .help = "\n Has the shell hit by the signal of this number: 'sigraise 15' ends it.\n",
    .run = run_sigraise,
};

const IoCommand kAbort = {
    .name = "abort",
    .needs_image = false,
    .summary = "simulate a program crash using abort(3)",
    .run = run_abort,
};

const IoCommand kQuit = {
    .name = "quit",
    .alias = "q",
    .max_arguments = -1,
    .needs_image = false,
    .summary = "exit the program",
    .run = run_quit,
};

const IoCommand kHelp = {
    .name = "help",
    .alias = "?",
    .max_arguments = 1,
    .needs_image = false,
    .arguments = "[command]",
    .summary = "help for one or all commands",
    .run = run_help,
};

}  // namespace platter::tool::io_shell
