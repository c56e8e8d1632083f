#include "monitor/json_splitter.h"

#include <fmt/format.h>

#include "base/try.h"

namespace platter::monitor {
namespace {

using base::Json;

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }
bool is_structural(char c) {
  return c == '{' || c == '}' || c == '[' || c == ']' || c == ':' || c == ',';
}
// Of numbers and of true, false and null.
bool is_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '+' || c == '.' || c == '_';
}
bool begins_word(char c) { return is_word(c) && c != '+' && c != '.' && c != '_'; }

}  // namespace

std::optional<Result<Json>> JsonSplitter::next(std::string_view& input) {
  while (!input.empty()) {
    bool taken = true;
    auto found = take(input.front(), taken);
    if (taken) input.remove_prefix(1);
    if (found) return found;
  }
  return std::nullopt;
}

// `taken`: cleared where `c` is to be looked at once more.
std::optional<Result<Json>> JsonSplitter::take(char c, bool& taken) {
  if (text_.size() >= kMaxValueBytes) return drop("JSON token size limit exceeded");
  switch (state_) {
    case State::kRecovery:
      if (static_cast<unsigned char>(c) < 0x20 || is_structural(c)) {
        state_ = State::kBetween;
        taken = false;
      }
      return std::nullopt;
    case State::kEscape:
      text_ += c;
      state_ = State::kString;
      return std::nullopt;
    case State::kString:
      if (static_cast<unsigned char>(c) < 0x20) return stray(c);
      text_ += c;
      if (c == '\\') state_ = State::kEscape;
      if (c != quote_) return std::nullopt;
      state_ = State::kBetween;
      return end_of_token();
    case State::kWord:
      if (is_word(c)) {
        text_ += c;
        return std::nullopt;
      }
      state_ = State::kBetween;
      taken = false;
      return end_of_token();
    case State::kBetween: break;
  }
  return outside_string(c);
}

std::optional<Result<Json>> JsonSplitter::outside_string(char c) {
  if (is_blank(c)) {
    if (!text_.empty()) text_ += ' ';  // what tells two words apart
    return std::nullopt;
  }
  if (is_structural(c)) return structural(c);
  if (c == '"' || c == '\'') {
    quote_ = c;
    state_ = State::kString;
  } else if (begins_word(c)) {
    state_ = State::kWord;
  } else {
    return stray(c);
  }
  text_ += c;
  return std::nullopt;
}

std::optional<Result<Json>> JsonSplitter::structural(char c) {
  text_ += c;
  braces_ += (c == '{') - (c == '}');
  brackets_ += (c == '[') - (c == ']');
  if (braces_ < 0 || brackets_ < 0) return finish();
  if (static_cast<unsigned>(braces_ + brackets_) > kMaxNesting)
    return drop("JSON nesting depth limit exceeded");
  return end_of_token();
}

std::optional<Result<Json>> JsonSplitter::end_of_token() {
  if (braces_ > 0 || brackets_ > 0) return std::nullopt;
  return finish();
}

std::optional<Result<Json>> JsonSplitter::finish() {
  auto value = Json::parse(text_);
  text_.clear();
  braces_ = brackets_ = 0;
  return value;
}

Result<Json> JsonSplitter::drop(std::string message) {
  text_.clear();
  braces_ = brackets_ = 0;
  state_ = State::kRecovery;
  return fail(EINVAL, std::move(message));
}

Result<Json> JsonSplitter::stray(char c) {
  const bool shown = c >= 0x20 && c < 0x7f;
  return drop(
      shown ? fmt::format("JSON parse error, stray '{}'", c)
            : fmt::format("JSON parse error, stray byte 0x{:02x}", static_cast<unsigned char>(c)));
}

}  // namespace platter::monitor
