// What a command of the shell is. As with the program's commands, the table is all there is to say
// about one: dispatch, the check of its argument count, and help are made from it.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace platter::tool::io_shell {

class Shell;

// What it must be able to do to the image, if one is open.
enum class Access { kRead, kWrite };

struct IoCommand {
  std::string_view name;
  std::string_view alias = {};
  int min_arguments = 0;
  int max_arguments = 0;  // -1: no limit
  bool needs_image = true;
  Access access = Access::kRead;
  std::string_view arguments = {};  // as the usage line has them
  std::string_view summary;
  std::string_view help = {};  // what `help NAME` says beyond that
  // `words` begin with the name as it was given. Returns whether it succeeded; what failed it has
  // said itself.
  bool (*run)(Shell& shell, const std::vector<std::string>& words);
};

// Sorted by name.
std::span<const IoCommand* const> all_io_commands();
const IoCommand* find_io_command(std::string_view name);  // also by alias; null: none

// "read [-abCqrv] ... off len -- reads ...", with its line end. `called`: the name to show, if it
// is not the command's own.
std::string usage_line(const IoCommand& command, std::string_view called = {});

}  // namespace platter::tool::io_shell
