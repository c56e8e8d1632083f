// The program: finds its dialect and the command, and runs it.
#pragma once

#include <span>
#include <string_view>

#include "tool/command.h"

namespace platter::tool {

// By the last component of argv[0].
Dialect dialect_of(std::string_view program_path);

// The whole of main(): returns the exit status.
int run_program(std::span<char*> arguments);

}  // namespace platter::tool
