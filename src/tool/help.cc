#include "tool/help.h"

#include <algorithm>

#include "block/registry.h"
#include "tool/command_table.h"
#include "tool/syntax.h"

namespace platter::tool {
namespace {

// The version of QEMU whose commands, options and messages the qemu-img dialect has.
constexpr std::string_view kQemuVersion = "7.2.0";
constexpr size_t kHelpColumn = 32;

// "[-f FMT]", "[--output FMT]": the letter where there is one.
std::string synopsis(const CommandOption& option) {
  std::string text =
      option.letter != 0 ? std::string("-") + option.letter : "--" + std::string(option.name);
  if (!option.argument.empty()) {
    text += option.letter != 0 ? " " : "=";
    text += option.argument;
  }
  return option.required ? text : "[" + text + "]";
}

std::string usage_line(const Command& command) {
  std::string line(command.name);
  for (const auto& option : command.options) {
    if (!option.native) line += " " + synopsis(option);
  }
  return line + " " + std::string(command.operands);
}

std::string option_line(const CommandOption& option) {
  std::string line = option.letter != 0 ? std::string("  -") + option.letter : "     ";
  if (!option.name.empty()) {
    line += option.letter != 0 ? ", --" : " --";
    line += option.name;
  }
  if (!option.argument.empty())
    line += (option.name.empty() ? " " : "=") + std::string(option.argument);
  if (line.size() + 2 > kHelpColumn) {
    line += "\n" + std::string(kHelpColumn, ' ');
  } else {
    line.resize(kHelpColumn, ' ');
  }
  return line + std::string(option.help) + "\n";
}

std::string formats_line() {
  const auto registry = block::DriverRegistry::builtin();
  std::vector<std::string> names;
  for (const auto* type : registry.types()) names.emplace_back(type->name);
  std::sort(names.begin(), names.end());
  std::string line = "Supported formats:";
  for (const auto& name : names) line += " " + name;
  return line + "\n";
}

}  // namespace

std::string program_name(Dialect dialect) {
  switch (dialect) {
    case Dialect::kQemuImg: return "qemu-img";
    case Dialect::kQemuIo: return "qemu-io";
    case Dialect::kStorageDaemon: return "qemu-storage-daemon";
    case Dialect::kPlatter: break;
  }
  return "platter";
}

std::string version_text(Dialect dialect) {
  std::string text = "platter version " + std::string(kVersion);
  if (dialect != Dialect::kPlatter) {
    text = program_name(dialect) + " version " + std::string(kQemuVersion) + " (Platter " +
           std::string(kVersion) + ")";
  }
  return text + "\nLicensed under the Apache License, Version 2.0\n";
}

std::string program_help(Dialect dialect) {
  if (dialect == Dialect::kQemuImg) {
    std::string text =
        version_text(dialect) +
        "usage: qemu-img [standard options] command [command options]\n\n"
        "Standard options:\n"
        "  -h, --help                    show this help, also after a command\n"
        "  -V, --version                 show the version\n"
        "  -T, --trace=SPEC              accepted for compatibility; there are no trace events\n\n"
        "Command syntax:\n";
    for (const auto* command : all_commands()) {
      if (!command->native) text += "  " + usage_line(*command) + "\n";
    }
    return text + "\n" + formats_line();
  }
  std::string text =
      "Usage: platter COMMAND [OPTIONS]\n\nVirtual disk images: make, look into, convert and check "
      "them.\n\nCommands:\n";
  for (const auto* command : all_commands()) {
    std::string line = "  " + std::string(command->name);
    line.resize(std::max<size_t>(line.size() + 1, 12), ' ');
    text += line + std::string(command->summary) + "\n";
  }
  return text + "\n'platter COMMAND --help' tells more about one of them.\n\n" + formats_line();
}

std::string command_help(Dialect dialect, const Command& command) {
  if (dialect == Dialect::kQemuImg) return program_help(dialect);
  const bool native = dialect == Dialect::kPlatter;
  std::string text = "Usage: " + program_name(dialect) +
                     (native ? " " + std::string(command.name) : "") + " [OPTIONS] " +
                     std::string(command.operands) + "\n\n" + std::string(command.summary) +
                     "\n\nOptions:\n";
  for (const auto& option : command.options) text += option_line(option);
  text += "  -h, --help                    show this help\n";
  if (!native) return text;
  text += "\nOptions of every command:\n";
  for (const auto& option : native_options()) text += option_line(option);
  text += "\nExit status:\n";
  for (const auto& [status, meaning] : exit_statuses_of(command)) {
    std::string line = "  " + std::to_string(status);
    line.resize(std::max<size_t>(line.size() + 1, 7), ' ');
    text += line + std::string(meaning) + "\n";
  }
  return text;
}

}  // namespace platter::tool
