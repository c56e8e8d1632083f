#include "tool/command_table.h"

namespace platter::tool {

namespace {

constexpr std::span<const Command* const> kCommands = {};

}  // namespace

std::span<const Command* const> all_commands() { return kCommands; }

const Command* find_command(std::string_view name) {
  for (const auto* command : kCommands) {
    if (command->name == name) return command;
  }
  return nullptr;
}

}  // namespace platter::tool
