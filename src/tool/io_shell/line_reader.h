// Where the shell's commands come from when they do not stand on the command line: a person at a
// terminal, with editing, history and completion of command names; or a pipe or file.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "tool/console.h"
#include "tool/interrupts.h"

namespace platter::tool::io_shell {

class LineReader {
 public:
  virtual ~LineReader() = default;
  // Shows the prompt. The line without its end; nothing: there are no more.
  virtual std::optional<std::string> next() = 0;

  // An interrupt while it lives leaves the terminal as it was.
  static std::unique_ptr<LineReader> for_standard_input(Console& console, Interrupts& interrupts,
                                                        std::string prompt);
};

}  // namespace platter::tool::io_shell
