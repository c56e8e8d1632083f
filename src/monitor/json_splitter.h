// JsonSplitter: a stream of bytes, cut into the JSON values that stand in it.
//
// Values need nothing between them but what tells them apart. What is no JSON is answered with one
// error, and what follows it is looked at afresh: after a stray character from the next line or
// bracket on, after a broken value from its end on. Memory is bounded by kMaxValueBytes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"

namespace platter::monitor {

class JsonSplitter {
 public:
  static constexpr size_t kMaxValueBytes = size_t{1} << 20;
  static constexpr unsigned kMaxNesting = base::Json::kMaxDepth;

  // Takes bytes off the front of `input` up to the end of the next value, or of what cannot become
  // one; nullopt: `input` is used up, and what was begun goes on with the next call.
  std::optional<Result<base::Json>> next(std::string_view& input);

 private:
  enum class State { kBetween, kWord, kString, kEscape, kRecovery };

  std::optional<Result<base::Json>> take(char c, bool& taken);
  std::optional<Result<base::Json>> structural(char c);
  std::optional<Result<base::Json>> outside_string(char c);
  std::optional<Result<base::Json>> end_of_token();
  std::optional<Result<base::Json>> finish();
  Result<base::Json> drop(std::string message);
  Result<base::Json> stray(char c);

  State state_ = State::kBetween;
  char quote_ = 0;
  int braces_ = 0;
  int brackets_ = 0;
  std::string text_;
};

}  // namespace platter::monitor
