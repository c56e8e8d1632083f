#include "monitor/definitions.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/options.h"
#include "base/size.h"
#include "base/try.h"
#include "monitor/validate.h"

namespace platter::monitor {
namespace {

using base::Json;
using Kind = Type::Kind;

Result<Json> typed(const Type& type, const Json& value, std::string_view name);

Result<Json> typed_integer(const Type& type, const std::string& text, std::string_view name) {
  if (type.name == "size") {
    PLATTER_ASSIGN(const uint64_t size, base::parse_size(text));
    return Json(size);
  }
  int64_t number = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (code == std::errc() && end == text.data() + text.size()) return Json(number);
  return fail(EINVAL, fmt::format("Parameter '{}' expects integer", name));
}

Result<Json> typed_scalar(const Type& type, const std::string& text, std::string_view name) {
  if (type.kind == Kind::kInteger) return typed_integer(type, text, name);
  if (type.kind != Kind::kBool) return Json(text);
  if (text == "on" || text == "yes" || text == "true") return Json(true);
  if (text == "off" || text == "no" || text == "false") return Json(false);
  return fail(EINVAL, fmt::format("Parameter '{}' expects 'on' or 'off'", name));
}

const Type* variant_of(const Type& type, const Json& value) {
  const Json* tag = type.kind == Kind::kUnion ? value.find(type.tag) : nullptr;
  const auto* text = tag != nullptr ? tag->get_if<std::string>() : nullptr;
  if (text == nullptr) return nullptr;
  const auto found = std::ranges::find(type.variants, *text, &Variant::value);
  return found == type.variants.end() ? nullptr : found->type;
}

// What the schema does not know is left as it is: to say so is up to validate().
Result<Json> typed_object(const Type& type, const Json& value) {
  const Type* more = variant_of(type, value);
  Json object = Json::object();
  for (const auto& [key, item] : *value.get_if<Json::Object>()) {
    const Member* member = type.member(key);
    if (member == nullptr && more != nullptr) member = more->member(key);
    if (member == nullptr) {
      object.add(key, item);
      continue;
    }
    PLATTER_ASSIGN(Json made, typed(*member->type, item, key));
    object.add(key, std::move(made));
  }
  return object;
}

Result<Json> typed_array(const Type& element, const Json& value, std::string_view name) {
  Json array = Json::array();
  for (const Json& item : *value.get_if<Json::Array>()) {
    PLATTER_ASSIGN(Json made, typed(element, item, name));
    array.append(std::move(made));
  }
  return array;
}

Result<Json> typed(const Type& type, const Json& value, std::string_view name) {
  if (type.kind == Kind::kAlternate && value.is_object()) {
    for (const Type* one : type.alternatives) {
      if (one->kind == Kind::kStruct || one->kind == Kind::kUnion) return typed_object(*one, value);
    }
  }
  if (value.is_object() && (type.kind == Kind::kStruct || type.kind == Kind::kUnion))
    return typed_object(type, value);
  if (value.is_array() && type.kind == Kind::kArray) return typed_array(*type.element, value, name);
  const auto* text = value.get_if<std::string>();
  return text == nullptr ? value : typed_scalar(type, *text, name);
}

}  // namespace

Result<Json> parse_definition(const Type& type, std::string_view text,
                              std::string_view implied_key) {
  Json object;
  if (text.starts_with('{')) {
    PLATTER_ASSIGN(object, Json::parse(text));
  } else {
    PLATTER_ASSIGN(const auto options, base::Options::from_key_values(text, implied_key));
    PLATTER_ASSIGN(object, typed_object(type, options.to_json()));
  }
  PLATTER_TRY(validate(type, object));
  return object;
}

}  // namespace platter::monitor
