#include "tool/program.h"

#include <fcntl.h>
#include <getopt.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "base/try.h"
#include "tool/command_table.h"
#include "tool/help.h"

namespace platter::tool {
namespace {

constexpr option kStandardOptions[] = {
    {"help", no_argument, nullptr, 'h'},
    {"version", no_argument, nullptr, 'V'},
    {"trace", required_argument, nullptr, 'T'},
    {nullptr, 0, nullptr, 0},
};

int usage_error(Console& console, std::string_view message) {
  console.error(message);
  console.note("Try '" + console.program_name() + " --help' for more information\n");
  return 1;
}

int show(Console& console, std::string_view text) {
  console.print(text);
  return console.finish() ? 0 : 1;
}

Result<void> open_events(const Invocation& invocation) {
  const auto number = invocation.value("progress-fd");
  if (!number) return {};
  PLATTER_ASSIGN(const int descriptor, parse_descriptor(*number));
  return invocation.console.events().open(descriptor);
}

// `arguments`: its own name first.
int run_command(const Command& command, Dialect dialect, Console& console,
                std::span<char*> arguments) {
  Invocation invocation(dialect, command, console);
  if (auto status = parse_arguments(invocation, arguments)) return *status;
  if (auto opened = open_events(invocation); !opened) return invocation.fail(opened.error());
  int status = command.run(invocation);
  if (!console.finish() && status == 0) status = 1;
  console.events().finished(status);
  return status;
}

// Where the caller has closed one of the first three descriptors, the next file that is opened must
// not become standard output. What is written there fails as before: these are for the other
// direction.
Result<void> occupy_standard_descriptors() {
  for (const int standard : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(standard, F_GETFD) >= 0) continue;
    // Gets the lowest free number.
    if (open("/dev/null", standard == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0)
      return std::unexpected(Error::from_errno(errno, "Could not open '/dev/null'"));
  }
  return {};
}

}  // namespace

Dialect dialect_of(std::string_view program_path) {
  if (auto slash = program_path.rfind('/'); slash != program_path.npos)
    program_path.remove_prefix(slash + 1);
  if (program_path == "qemu-img") return Dialect::kQemuImg;
  if (program_path == "qemu-storage-daemon") return Dialect::kStorageDaemon;
  return program_path == "qemu-io" ? Dialect::kQemuIo : Dialect::kPlatter;
}

int run_program(std::span<char*> arguments) {
  signal(SIGPIPE, SIG_IGN);
  const Dialect dialect = arguments.empty() ? Dialect::kPlatter : dialect_of(arguments[0]);
  Console console(program_name(dialect));
  if (auto occupied = occupy_standard_descriptors(); !occupied) {
    console.error(occupied.error());
    return 1;
  }
  if (dialect == Dialect::kQemuIo)
    return run_command(*find_command("io"), dialect, console, arguments);
  if (dialect == Dialect::kStorageDaemon)
    return run_command(*find_command("daemon"), dialect, console, arguments);
  if (arguments.size() < 2) return usage_error(console, "Not enough arguments");

  const int count = static_cast<int>(arguments.size());
  optind = 0;
  opterr = 0;
  int key;
  // '+': these end at the first word that is no option: the command.
  while ((key = getopt_long(count, arguments.data(), "+:hVT:", kStandardOptions, nullptr)) != -1) {
    const std::string word = arguments[static_cast<size_t>(optind - 1)];
    switch (key) {
      case 'h': return show(console, program_help(dialect));
      case 'V': return show(console, version_text(dialect));
      case 'T': console.warning("trace event '" + std::string(optarg) + "' does not exist"); break;
      case ':': return usage_error(console, "missing argument for option '" + word + "'");
      default: return usage_error(console, "unrecognized option '" + word + "'");
    }
  }
  auto rest = arguments.subspan(static_cast<size_t>(optind));
  if (rest.empty()) return 0;

  const Command* command = find_command(rest[0]);
  if (command == nullptr || (command->native && dialect != Dialect::kPlatter)) {
    return usage_error(console, "Command not found: " + std::string(rest[0]));
  }
  return run_command(*command, dialect, console, rest);
}

}  // namespace platter::tool
