// The texts of --help and --version, made from the command tables.
#pragma once

#include <string>

#include "tool/command.h"

namespace platter::tool {

inline constexpr std::string_view kVersion = "0.1.0";

// What it is called by.
std::string program_name(Dialect dialect);
std::string version_text(Dialect dialect);
std::string program_help(Dialect dialect);
// qemu-img has one help for all of its commands; platter has one for each.
std::string command_help(Dialect dialect, const Command& command);

}  // namespace platter::tool
