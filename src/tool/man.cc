// platter man: the manual pages, made from the command and option tables.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/try.h"
#include "fmt/format.h"
#include "tool/command.h"
#include "tool/command_table.h"
#include "tool/help.h"
#include "tool/syntax.h"

namespace platter::tool {
namespace {

// Text as roff takes it: a hyphen that is one on the keyboard, no request where a line begins.
std::string roff(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '\\': out += "\\e"; break;
      case '-': out += "\\-"; break;
      case '\'': out += "\\(aq"; break;
      case '.': out += out.empty() ? "\\&." : "."; break;
      default: out += c;
    }
  }
  return out;
}

std::string sentence(std::string_view text) {
  std::string out(text);
  if (!out.empty() && out.back() == '.') out.pop_back();
  if (out.size() > 1 && out[1] >= 'a' && out[1] <= 'z') {
    out[0] = out[0] >= 'A' && out[0] <= 'Z' ? static_cast<char>(out[0] + 32) : out[0];
  }
  return roff(out);
}

std::string heading(std::string_view page) {
  return fmt::format(".TH {} 1 \"\" \"platter {}\" \"Platter manual\"\n", roff(page), kVersion);
}

// .TP with "-f, --format=FMT"
std::string option_entry(const CommandOption& option) {
  std::string tag;
  if (option.letter != 0) tag = fmt::format("\\fB\\-{}\\fR", option.letter);
  if (!option.name.empty()) {
    tag += (tag.empty() ? "" : ", ") + fmt::format("\\fB\\-\\-{}\\fR", roff(option.name));
  }
  if (!option.argument.empty()) {
    tag += fmt::format("{}\\fI{}\\fR", option.name.empty() ? " " : "=", roff(option.argument));
  }
  return ".TP\n" + tag + "\n" + roff(option.help) + "\n";
}

std::string type_word(const base::OptionDef& def) {
  if (!def.choices.empty()) {
    std::string words;
    for (const auto choice : def.choices) words += (words.empty() ? "" : "|") + std::string(choice);
    return words;
  }
  switch (def.type) {
    case base::OptionType::kBool: return "on|off";
    case base::OptionType::kNumber: return "number";
    case base::OptionType::kSize: return "size";
    case base::OptionType::kString: return "text";
  }
  return "text";
}

std::string creation_options() {
  std::string text = ".SH CREATION OPTIONS\nWhat \\fB\\-o\\fR takes, by format.\n";
  for (const auto& format : creatable_formats()) {
    if (format.options.defs().empty()) continue;
    text += ".SS " + roff(format.name) + "\n";
    for (const auto& def : format.options.defs()) {
      text += fmt::format(".TP\n\\fB{}\\fR=\\fI{}\\fR\n{}", roff(def.name), roff(type_word(def)),
                          roff(def.help));
      if (!def.default_value.empty()) text += " (default: " + roff(def.default_value) + ")";
      text += "\n";
    }
  }
  return text;
}

bool takes_creation_options(const Command& command) {
  return std::ranges::any_of(command.options, [](const CommandOption& option) {
    return option.letter == 'o' && option.argument == "OPTIONS";
  });
}

std::string exit_section(const std::vector<ExitMeaning>& statuses) {
  std::string text = ".SH EXIT STATUS\n";
  for (const auto& [status, meaning] : statuses) {
    text += fmt::format(".TP\n\\fB{}\\fR\n{}\n", status, roff(meaning));
  }
  return text;
}

std::string program_page() {
  std::string text =
      heading("PLATTER") +
      ".SH NAME\nplatter \\- virtual disk images: make, look into, convert and check them\n"
      ".SH SYNOPSIS\n\\fBplatter\\fR \\fICOMMAND\\fR [\\fIOPTIONS\\fR]\n"
      ".SH DESCRIPTION\nEach command has a page of its own, and tells about itself with "
      "\\fB\\-\\-help\\fR. Called as \\fBqemu\\-img\\fR the program takes the options of "
      "that one, prints what it prints, and exits as it does.\n.SH COMMANDS\n";
  for (const auto* command : all_commands()) {
    text += fmt::format(".TP\n\\fBplatter\\-{}\\fR(1)\n{}\n", roff(command->name),
                        roff(command->summary));
  }
  text += ".SH OPTIONS OF EVERY COMMAND\n";
  for (const auto& option : native_options()) text += option_entry(option);
  text += ".SH FORMATS\n";
  std::string names;
  for (const auto& name : format_names()) names += (names.empty() ? "" : ", ") + roff(name);
  text += names + "\n";
  return text + exit_section({{0, "done"}, {1, "not done; one line on standard error says why"}}) +
         "Some commands have others; their pages list them. Interrupted, a command removes what it "
         "was "
         "making and ends as of the signal.\n";
}

std::string command_page(const Command& command) {
  std::string name = "platter-" + std::string(command.name);
  std::string upper;
  for (const char c : name) upper += c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c;
  std::string text =
      heading(upper) + fmt::format(".SH NAME\n{} \\- {}\n", roff(name), sentence(command.summary));
  text += fmt::format(".SH SYNOPSIS\n\\fBplatter {}\\fR [\\fIOPTIONS\\fR] {}\n", roff(command.name),
                      roff(command.operands));
  text += ".SH DESCRIPTION\n" + roff(command.summary) + "\n.SH OPTIONS\n";
  for (const auto* option : options_of(command)) text += option_entry(*option);
  if (takes_creation_options(command)) text += creation_options();
  text += exit_section(exit_statuses_of(command));
  return text + ".SH SEE ALSO\n\\fBplatter\\fR(1)\n";
}

// ---- The command

Result<void> write_file(const std::string& path, std::string_view text) {
  const auto failed = [&] {
    return std::unexpected(Error::from_errno(errno, "Could not write '" + path + "'"));
  };
  const int descriptor = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor < 0) return failed();
  while (!text.empty()) {
    const ssize_t written = write(descriptor, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      auto failure = failed();
      close(descriptor);
      return failure;
    }
    text.remove_prefix(static_cast<size_t>(written));
  }
  if (close(descriptor) != 0) return failed();
  return {};
}

Result<void> write_pages(const std::string& directory) {
  PLATTER_TRY(write_file(directory + "/platter.1", manual_page(nullptr)));
  for (const auto* command : all_commands()) {
    PLATTER_TRY(
        write_file(fmt::format("{}/platter-{}.1", directory, command->name), manual_page(command)));
  }
  return {};
}

int run_man(Invocation& invocation) {
  if (invocation.operands.size() > 1)
    return invocation.usage_error("Expecting at most one command");
  if (const auto directory = invocation.value("output-directory")) {
    if (!invocation.operands.empty()) {
      return invocation.usage_error("--output-directory writes the pages of all commands");
    }
    auto written = write_pages(*directory);
    return written ? 0 : invocation.fail(written.error());
  }
  const Command* command = nullptr;
  if (!invocation.operands.empty()) {
    command = find_command(invocation.operands[0]);
    if (command == nullptr) return invocation.fail("Command not found: " + invocation.operands[0]);
  }
  invocation.console.print(manual_page(command));
  return 0;
}

constexpr CommandOption kOptions[] = {
    {.name = "output-directory", .argument = "DIR", .help = "write every page into this directory"},
};

}  // namespace

std::string manual_page(const Command* command) {
  return command == nullptr ? program_page() : command_page(*command);
}

extern const Command kManCommand;
const Command kManCommand = {
    .name = "man",
    .summary = "Print the manual page of a command, in roff.",
    .operands = "[COMMAND]",
    .options = kOptions,
    .run = run_man,
    .native = true,
};

}  // namespace platter::tool
