// The configuration file of blkdebug.
#include <fmt/format.h>

#include <cerrno>

#include "base/try.h"
#include "filter/blkdebug/rules.h"

namespace platter::filter::blkdebug {

namespace {

constexpr std::string_view kInjectError = "inject-error";
constexpr std::string_view kSetState = "set-state";

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r";
  const size_t begin = text.find_first_not_of(kBlanks);
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1);
}

std::unexpected<Error> malformed(unsigned line, std::string_view why) {
  return fail(EINVAL, fmt::format("Line {} of the blkdebug config file: {}", line, why));
}

class Parser {
 public:
  explicit Parser(RuleSet& rules) : rules_(rules) {}

  Result<void> line(std::string_view text) {
    ++line_;
    text = trimmed(text);
    if (text.empty() || text.front() == '#') return {};
    return text.front() == '[' ? section(text) : entry(text);
  }
  // The section that was open is whole.
  Result<void> end_section() {
    if (section_.empty()) return {};
    const base::Options options = std::exchange(options_, {});
    return section_ == kInjectError ? rules_.add_injection(options) : rules_.add_change(options);
  }

 private:
  // [name] or [name "id"].
  Result<void> section(std::string_view text) {
    PLATTER_TRY(end_section());
    if (text.back() != ']') return malformed(line_, "']' is missing");
    const std::string_view inside = trimmed(text.substr(1, text.size() - 2));
    section_ = std::string(inside.substr(0, inside.find_first_of(" \t")));
    if (section_ != kInjectError && section_ != kSetState)
      return fail(EINVAL, fmt::format("There is no option group '{}'", section_));
    return {};
  }

  Result<void> entry(std::string_view text) {
    if (section_.empty()) return fail(EINVAL, "no group defined");
    const size_t equals = text.find('=');
    if (equals == text.npos) return malformed(line_, "'=' is missing");
    const std::string_view value = trimmed(text.substr(equals + 1));
    if (value.size() < 2 || value.front() != '"' || value.back() != '"')
      return malformed(line_, "a value stands in double quotes");
    options_.set(trimmed(text.substr(0, equals)), std::string(value.substr(1, value.size() - 2)));
    return {};
  }

  RuleSet& rules_;
  unsigned line_ = 0;
  std::string section_;  // empty: none yet
  base::Options options_;
};

}  // namespace

Result<void> parse_config(std::string_view text, RuleSet& rules) {
  Parser parser(rules);
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    PLATTER_TRY(parser.line(text.substr(0, end)));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parser.end_section();
}

}  // namespace platter::filter::blkdebug
