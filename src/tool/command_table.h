// The commands of the program.
#pragma once

#include <span>
#include <string_view>

#include "tool/command.h"

namespace platter::tool {

std::span<const Command* const> all_commands();
const Command* find_command(std::string_view name);  // null: none

}  // namespace platter::tool
