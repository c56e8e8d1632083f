// What an object is defined by, and what is to be seen of one.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/options.h"
#include "platter/error.h"

namespace platter::monitor {

// A secret's bytes are not among what is seen.
struct ObjectProperty {
  std::string name;
  std::string_view type;  // as clients know it: "int"
  base::Json value;
};

// The properties that a definition gives, taken out one by one; what is left at the end is unknown.
class Properties {
 public:
  // "TYPE,id=ID,...", or the same as a JSON object.
  static Result<Properties> parse(std::string_view text);
  Properties() = default;
  explicit Properties(base::Options values) : values_(std::move(values)) {}

  base::Options take_values() { return std::move(values_); }
  std::optional<std::string> take(std::string_view name);
  Result<std::optional<int64_t>> take_integer(std::string_view name);
  // EINVAL: one was not taken.
  Result<void> check_empty() const;

 private:
  Result<void> parse_words(std::string_view text);

  base::Options values_;
};

}  // namespace platter::monitor
