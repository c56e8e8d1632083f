// One line of the shell, cut into words, and the options among them.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "platter/error.h"

namespace platter::tool::io_shell {

// Cut at blanks; there is no quoting.
std::vector<std::string> split_words(std::string_view line);

// The words of one command, sorted. Options are single letters that may share a word and stand
// anywhere; "--" ends them.
class Words {
 public:
  // `letters` as getopt has them: a ':' after a letter that takes a value. The error's text is the
  // line to print: "read: invalid option -- 'Z'".
  static Result<Words> parse(const std::vector<std::string>& words, std::string_view letters);

  bool has(char letter) const;
  // The last one given.
  std::optional<std::string> value(char letter) const;
  std::vector<std::string> values(char letter) const;
  const std::vector<std::string>& operands() const { return operands_; }

 private:
  struct Option {
    char letter;
    std::string value;
  };
  std::vector<Option> options_;
  std::vector<std::string> operands_;
};

}  // namespace platter::tool::io_shell
