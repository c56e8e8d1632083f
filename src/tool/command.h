// What a command of the program is: a name, a table of options, and a function.
//
// The tables are all there is to say about a command's syntax: parsing, usage errors, --help and
// later completion and manual pages are made from them. A command is added by declaring
// its `extern const Command` and listing it in command_table.cc.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "monitor/objects.h"
#include "tool/console.h"

namespace platter::tool {

// The tongue that the program speaks, by the name it was called with. It decides the prefix of
// errors, the version text, which files an image may name when nothing is said (platter: those in
// its own directory; the others: any), and the form of --help. As qemu-io it is the one command
// `io`, as qemu-storage-daemon `daemon`.
enum class Dialect { kPlatter, kQemuImg, kQemuIo, kStorageDaemon };

struct CommandOption {
  char letter = 0;                 // 0: long form only
  std::string_view name = {};      // long form; empty: letter only
  std::string_view argument = {};  // what its value is called in the usage line; empty: a flag
  std::string_view help = {};
  bool required = false;  // only for the usage line
  bool native = false;    // only where the program speaks as itself
};

// What an exit status says, as help and manual pages have it.
struct ExitMeaning {
  int status;
  std::string_view meaning;
};

class Invocation;

struct Command {
  std::string_view name;
  std::string_view summary;
  std::string_view operands;  // as the usage line has them: "FILE [SIZE]"
  std::span<const CommandOption> options;
  // Returns the exit status.
  int (*run)(Invocation& invocation);
  // The last word is an operand even if it looks like an option ("-1G"), and must be there.
  bool last_word_is_operand = false;
  // The exit status where an --object is wrong.
  int object_error_status = 1;
  // Only where the program speaks as itself: no compat name has it.
  bool native = false;
  // It makes what --object says itself, in the order of its options.
  bool defines_objects = false;
  // Besides those that every command has (0: done, 1: not done).
  std::span<const ExitMeaning> exit_statuses = {};
};

// One option as it was given. `option` is named by its long form, or by its letter where it has
// none.
struct GivenOption {
  const CommandOption* option;
  std::string value;
  bool is(std::string_view name) const {
    return option->name.empty() ? name.size() == 1 && option->letter == name[0]
                                : option->name == name;
  }
};

// One run of one command: what was given, and where to speak.
class Invocation {
 public:
  Invocation(Dialect dialect_in, const Command& command_in, Console& console_in)
      : dialect(dialect_in), command(command_in), console(console_in) {}

  Dialect dialect;
  const Command& command;
  Console& console;
  std::vector<GivenOption> options;  // in the order given
  std::vector<std::string> operands;
  monitor::Objects objects;  // what --object defined

  // `name` is the long form, or the letter of an option that has none.
  bool has(std::string_view name) const { return find(name) != nullptr; }
  // The last one given.
  std::optional<std::string> value(std::string_view name) const;
  std::string value_or(std::string_view name, std::string_view fallback) const;
  std::vector<std::string> values(std::string_view name) const;

  // As if it had been given: one of native_options().
  void set_native_option(std::string_view name, std::string value);

  // Prints the message and where to find help; returns exit status 1.
  int usage_error(std::string_view message) const;
  // Prints it; returns exit status 1.
  int fail(std::string_view message) const;
  int fail(const Error& failure) const;

 private:
  const GivenOption* find(std::string_view name) const;
};

// Options that every command has where the program speaks as itself: --engine, --reactors,
// --allow-backing.
std::span<const CommandOption> native_options();

// Fills options and operands from `arguments` (argv of the command: its own name first). An exit
// status if there is nothing more to do: --help was printed, or an error.
std::optional<int> parse_arguments(Invocation& invocation, std::span<char*> arguments);

}  // namespace platter::tool
