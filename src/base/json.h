// JSON values. Objects keep the order in which their members were added, so that output is stable
// and can follow the order that scripts are used to.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "platter/error.h"

namespace platter::base {

class Json {
 public:
  using Array = std::vector<Json>;
  using Member = std::pair<std::string, Json>;
  using Object = std::vector<Member>;
  using Value =
      std::variant<std::nullptr_t, bool, int64_t, uint64_t, double, std::string, Array, Object>;

  Json() = default;
  Json(std::nullptr_t) {}
  Json(bool value) : value_(value) {}
  Json(int value) : value_(int64_t{value}) {}
  Json(unsigned value) : value_(uint64_t{value}) {}
  Json(int64_t value) : value_(value) {}
  Json(uint64_t value) : value_(value) {}
  Json(double value) : value_(value) {}
  Json(const char* value) : value_(std::string(value)) {}
  Json(std::string_view value) : value_(std::string(value)) {}
  Json(std::string value) : value_(std::move(value)) {}
  Json(Array value) : value_(std::move(value)) {}
  Json(Object value) : value_(std::move(value)) {}

  static Json object() { return Json(Object{}); }
  static Json array() { return Json(Array{}); }

  const Value& value() const { return value_; }
  template <typename T>
  const T* get_if() const {
    return std::get_if<T>(&value_);
  }
  bool is_object() const { return get_if<Object>() != nullptr; }
  bool is_array() const { return get_if<Array>() != nullptr; }

  // On an object: the member, or null if there is none.
  const Json* find(std::string_view key) const;
  // On an object: appends (the caller does not add a key twice).
  Json& add(std::string key, Json value);
  // On an array.
  Json& append(Json value);

  // One line ("{"a": 1, "b": [1, 2]}"), or indented by `indent` spaces a level; no newline at the
  // end. ASCII only: the rest is escaped, bytes that are not UTF-8 as U+FFFD.
  std::string dump() const;
  std::string dump_pretty(unsigned indent = 4) const;

  // Nesting is limited to kMaxDepth; a key that comes twice in an object is an error. Strings may
  // stand in single quotes. A syntax error says where ("at byte N").
  static Result<Json> parse(std::string_view text);
  static constexpr unsigned kMaxDepth = 64;

 private:
  Value value_ = nullptr;
};

}  // namespace platter::base
