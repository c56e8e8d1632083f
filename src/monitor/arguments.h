// Arguments: what a command was given. They have passed the schema, so that to ask for something
// that it does not have, or of another type, is our own mistake (asserted).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/assert.h"
#include "base/json.h"

namespace platter::monitor {

class Arguments {
 public:
  // `object` outlives it.
  explicit Arguments(const base::Json& object) : object_(&object) {}

  const base::Json& json() const { return *object_; }
  bool has(std::string_view name) const { return object_->find(name) != nullptr; }
  const base::Json& at(std::string_view name) const {
    const base::Json* value = object_->find(name);
    PLATTER_ASSERT(value != nullptr);
    return *value;
  }
  const std::string& text(std::string_view name) const {
    const auto* value = at(name).get_if<std::string>();
    PLATTER_ASSERT(value != nullptr);
    return *value;
  }
  // Empty where it was left out.
  std::string text_or_empty(std::string_view name) const { return has(name) ? text(name) : ""; }
  bool flag(std::string_view name, bool fallback = false) const {
    if (!has(name)) return fallback;
    const bool* value = at(name).get_if<bool>();
    PLATTER_ASSERT(value != nullptr);
    return *value;
  }
  int64_t integer(std::string_view name) const {
    const base::Json& value = at(name);
    if (const auto* large = value.get_if<uint64_t>()) return static_cast<int64_t>(*large);
    PLATTER_ASSERT(value.get_if<int64_t>() != nullptr);
    return *value.get_if<int64_t>();
  }
  uint64_t natural(std::string_view name, uint64_t fallback) const {
    return has(name) ? static_cast<uint64_t>(integer(name)) : fallback;
  }
  Arguments object(std::string_view name) const { return Arguments(at(name)); }
  const base::Json::Array& array(std::string_view name) const {
    const auto* value = at(name).get_if<base::Json::Array>();
    PLATTER_ASSERT(value != nullptr);
    return *value;
  }

 private:
  const base::Json* object_;
};

}  // namespace platter::monitor
