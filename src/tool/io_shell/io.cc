// platter io: a shell that reads and writes images request by request.
#include "base/try.h"
#include "fmt/format.h"
#include "tool/arguments.h"
#include "tool/help.h"
#include "tool/io_shell/line_reader.h"
#include "tool/io_shell/shell.h"

namespace platter::tool {
namespace {

using io_shell::LineReader;
using io_shell::OpenSettings;
using io_shell::Shell;

Result<OpenSettings> make_settings(const Invocation& invocation) {
  OpenSettings settings;
  for (const auto& given : invocation.options) {
    PLATTER_TRY(settings.apply(given.option->letter, given.value));
  }
  if (auto format = invocation.value("format")) {
    if (invocation.has("image-opts"))
      return fail(EINVAL, "--image-opts and -f are mutually exclusive");
    settings.options.set("driver", *format);
  }
  if (!invocation.operands.empty()) {
    settings.name = invocation.operands[0];
    settings.named = !invocation.has("image-opts");
    settings.name_is_options = invocation.has("image-opts");
  }
  return settings;
}

void run_commands(Shell& shell, const Invocation& invocation) {
  for (const auto& command : invocation.values("cmd")) {
    shell.run_line(command);
    if (shell.quitting()) return;
  }
  if (invocation.has("cmd")) return;
  const bool compat = invocation.dialect == Dialect::kQemuIo;
  auto reader = LineReader::for_standard_input(invocation.console, shell.session().interrupts(),
                                               compat ? "qemu-io> " : "platter io> ");
  while (!shell.quitting()) {
    auto line = reader->next();
    if (!line) return;
    shell.run_line(*line);
  }
}

int run_io(Invocation& invocation) {
  if (invocation.has("version")) {
    invocation.console.print(version_text(invocation.dialect));
    return 0;
  }
  for (const auto& spec : invocation.values("trace")) {
    invocation.console.warning("trace event '" + spec + "' does not exist");
  }
  auto settings = make_settings(invocation);
  if (!settings) return invocation.fail(settings.error());
  if (invocation.operands.size() > 1) {
    invocation.console.print(command_help(invocation.dialect, invocation.command));
    return 1;
  }
  if (auto checked = check_common_options(invocation); !checked)
    return invocation.fail(checked.error());
  auto session = Session::start(invocation, Reactors::kOneAProcessor);
  if (!session) return invocation.fail(session.error());
  Shell shell(**session, {.misalign = invocation.has("misalign"),
                          .names_are_options = invocation.has("image-opts")});
  if (!invocation.operands.empty() && !shell.open(*settings)) return 1;
  run_commands(shell, invocation);
  const bool closed = shell.close();
  return closed && !shell.failed() ? 0 : 1;
}

constexpr CommandOption kOptions[] = {
    {.name = "object", .argument = "OBJECT", .help = "define a secret or credentials"},
    {.name = "image-opts", .help = "FILE is a list of options, not a file name"},
    {.letter = 'c', .name = "cmd", .argument = "COMMAND", .help = "run this command; repeatable"},
    {.letter = 'f',
     .name = "format",
     .argument = "FMT",
     .help = "format of the image (default: found out)"},
    {.letter = 'r', .name = "read-only", .help = "open it for reading only"},
    {.letter = 's', .name = "snapshot", .help = "what is written goes to a temporary overlay"},
    {.letter = 'n', .name = "nocache", .help = "bypass the page cache: short for -t none"},
    {.letter = 'C',
     .name = "copy-on-read",
     .help = "what is read from a backing file is written to the image"},
    {.letter = 'm', .name = "misalign", .help = "use memory that is not aligned"},
    {.letter = 'k', .name = "native-aio", .help = "short for -i native"},
    {.letter = 'i',
     .name = "aio",
     .argument = "MODE",
     .help = "how files are read and written: threads, native or io_uring"},
    {.letter = 't', .name = "cache", .argument = "MODE", .help = "cache mode (writethrough)"},
    {.letter = 'd', .name = "discard", .argument = "MODE", .help = "unmap or ignore (unmap)"},
    {.letter = 'T',
     .name = "trace",
     .argument = "SPEC",
     .help = "accepted for compatibility; there are no trace events"},
    {.letter = 'U', .name = "force-share", .help = "open it even while somebody writes to it"},
    {.letter = 'V', .name = "version", .help = "show the version"},
};

}  // namespace

extern const Command kIoCommand;
const Command kIoCommand = {
    .name = "io",
    .summary = "Read and write an image request by request, in a shell.",
    .operands = "[FILE]",
    .options = kOptions,
    .run = run_io,
    .native = true,
};

}  // namespace platter::tool
