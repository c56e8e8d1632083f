#include "tool/io_shell/words.h"

#include <algorithm>
#include <cerrno>

#include "base/try.h"
#include "fmt/format.h"

namespace platter::tool::io_shell {

std::vector<std::string> split_words(std::string_view line) {
  std::vector<std::string> words;
  while (!line.empty()) {
    const size_t end = std::min(line.find(' '), line.size());
    if (end != 0) words.emplace_back(line.substr(0, end));
    line.remove_prefix(std::min(end + 1, line.size()));
  }
  return words;
}

Result<Words> Words::parse(const std::vector<std::string>& words, std::string_view letters) {
  Words parsed;
  bool options_end = false;
  for (size_t i = 1; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (options_end || word.size() < 2 || word[0] != '-') {
      parsed.operands_.push_back(word);
      continue;
    }
    if (word == "--") {
      options_end = true;
      continue;
    }
    for (size_t at = 1; at < word.size(); ++at) {
      const size_t known = letters.find(word[at]);
      if (known == letters.npos || word[at] == ':') {
        return fail(EINVAL, fmt::format("{}: invalid option -- '{}'", words[0], word[at]));
      }
      Option option = {word[at], {}};
      if (known + 1 < letters.size() && letters[known + 1] == ':') {
        // The rest of the word, or the next one.
        option.value = word.substr(at + 1);
        if (option.value.empty() && ++i == words.size()) {
          return fail(EINVAL,
                      fmt::format("{}: option requires an argument -- '{}'", words[0], word[at]));
        }
        if (option.value.empty()) option.value = words[i];
        at = word.size();
      }
      parsed.options_.push_back(std::move(option));
    }
  }
  return parsed;
}

bool Words::has(char letter) const {
  for (const auto& option : options_) {
    if (option.letter == letter) return true;
  }
  return false;
}

std::optional<std::string> Words::value(char letter) const {
  auto all = values(letter);
  if (all.empty()) return std::nullopt;
  return std::move(all.back());
}

std::vector<std::string> Words::values(char letter) const {
  std::vector<std::string> found;
  for (const auto& option : options_) {
    if (option.letter == letter) found.push_back(option.value);
  }
  return found;
}

}  // namespace platter::tool::io_shell
