// The command tables read as syntax: what completion scripts and manual pages are made from.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/options.h"
#include "tool/command.h"

namespace platter::tool {

// What may stand as an option's value or as an operand.
struct ValueHint {
  std::vector<std::string> words;  // these
  bool files = false;              // or a file's name
  bool directories = false;        // or a directory's
};
ValueHint hint_of_option(const CommandOption& option);
ValueHint hint_of_operands(const Command& command);

// Every option of the command, those of every command and --help included.
std::vector<const CommandOption*> options_of(const Command& command);

// Formats that can be created, with their tables.
struct CreatableFormat {
  std::string_view name;
  base::OptionSchema options;
};
std::vector<CreatableFormat> creatable_formats();
std::vector<std::string> format_names();

// What every exit status of the command means, the common ones included, by status.
std::vector<ExitMeaning> exit_statuses_of(const Command& command);

// Scripts for each shell; nothing if the shell is not known.
std::string bash_completion();
std::string zsh_completion();
std::string fish_completion();

// Pages for section 1, in the man macros of roff. null: the page of the program itself.
std::string manual_page(const Command* command);

}  // namespace platter::tool
