#include "monitor/validate.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/assert.h"
#include "base/try.h"

namespace platter::monitor {
namespace {

using base::Json;
using Kind = Type::Kind;

// Where a value stands: its path from the arguments on, and its own name, which is all that some of
// the messages have.
struct Place {
  std::string path;
  std::string_view name = "null";

  Place member(std::string_view key) const {
    return {path.empty() ? std::string(key) : fmt::format("{}.{}", path, key), key};
  }
  Place item(size_t index) const { return {fmt::format("{}[{}]", path, index)}; }
};

std::unexpected<Error> wrong_type(std::string_view where, std::string_view expected) {
  return fail(EINVAL,
              fmt::format("Invalid parameter type for '{}', expected: {}", where, expected));
}

Result<void> check(const Type& type, const Json& value, const Place& place);

Result<void> check_integer(const Type& type, const Json& value, const Place& place) {
  bool fits = true;
  if (const auto* number = value.get_if<int64_t>()) {
    fits = *number >= type.min && (*number < 0 || static_cast<uint64_t>(*number) <= type.max);
  } else if (const auto* large = value.get_if<uint64_t>()) {
    if (*large > INT64_MAX && type.max == INT64_MAX) return wrong_type(place.path, "integer");
    fits = *large <= type.max;
  } else if (type.name != "int" && type.name != "int32") {
    return fail(EINVAL, fmt::format("Parameter '{}' expects uint64", place.path));
  } else {
    return wrong_type(place.path, "integer");
  }
  if (fits) return {};
  return fail(EINVAL, fmt::format("Parameter '{}' expects {}_t", place.name, type.name));
}

Result<void> check_enum(const Type& type, const Json& value, const Place& place) {
  const auto* text = value.get_if<std::string>();
  if (text == nullptr) return wrong_type(place.path, "string");
  if (type.value(*text) != nullptr) return {};
  return fail(EINVAL, fmt::format("Parameter '{}' does not accept value '{}'", place.name, *text));
}

bool is_struct(const Type& type) { return type.kind == Kind::kStruct || type.kind == Kind::kUnion; }

bool fits_kind(const Type& type, const Json& value) {
  if (value.is_object()) return is_struct(type);
  if (value.get_if<std::string>() != nullptr)
    return type.kind == Kind::kString || type.kind == Kind::kEnum;
  if (value.get_if<std::nullptr_t>() != nullptr) return type.kind == Kind::kNull;
  return false;
}

Result<void> check_alternate(const Type& type, const Json& value, const Place& place) {
  for (const Type* alternative : type.alternatives) {
    if (fits_kind(*alternative, value)) return check(*alternative, value, place);
  }
  return wrong_type(place.name, type.name);
}

Result<void> check_members(const Type& type, const Json& value, const Place& place) {
  for (const Member& member : type.members) {
    const Json* given = value.find(member.name);
    const Place there = place.member(member.name);
    if (given == nullptr) {
      if (member.optional) continue;
      return fail(EINVAL, fmt::format("Parameter '{}' is missing", there.path));
    }
    PLATTER_TRY(check(*member.type, *given, there));
  }
  return {};
}

const Refusal* find_refusal(const Type& type, std::string_view member) {
  const auto found = std::ranges::find(type.refusals, member, &Refusal::member);
  return found == type.refusals.end() ? nullptr : &*found;
}

Result<void> check_struct(const Type& type, const Json& value, const Place& place) {
  if (!value.is_object()) return wrong_type(place.path, "object");
  PLATTER_TRY(check_members(type, value, place));
  const Type* more = nullptr;
  if (type.kind == Kind::kUnion) {
    const auto& tag = *value.find(type.tag)->get_if<std::string>();
    const auto variant = std::ranges::find(type.variants, tag, &Variant::value);
    if (variant != type.variants.end()) more = variant->type;
  }
  if (more != nullptr) PLATTER_TRY(check_members(*more, value, place));
  for (const auto& [key, item] : *value.get_if<Json::Object>()) {
    if (type.member(key) != nullptr || (more != nullptr && more->member(key) != nullptr)) continue;
    const std::string path = place.member(key).path;
    const Refusal* refusal = more != nullptr ? find_refusal(*more, key) : nullptr;
    if (refusal == nullptr) refusal = find_refusal(type, key);
    if (refusal == nullptr) return fail(EINVAL, fmt::format("Parameter '{}' is unexpected", path));
    return fail(EINVAL, fmt::format("Parameter '{}' is not taken: {}", path, refusal->reason));
  }
  return {};
}

Result<void> check_array(const Type& type, const Json& value, const Place& place) {
  const auto* items = value.get_if<Json::Array>();
  if (items == nullptr) return wrong_type(place.path, "array");
  for (size_t i = 0; i < items->size(); ++i)
    PLATTER_TRY(check(*type.element, (*items)[i], place.item(i)));
  return {};
}

Result<void> check_scalar(bool fits, const Place& place, std::string_view expected) {
  if (!fits) return wrong_type(place.path, expected);
  return {};
}

Result<void> check(const Type& type, const Json& value, const Place& place) {
  switch (type.kind) {
    case Kind::kString:
      return check_scalar(value.get_if<std::string>() != nullptr, place, "string");
    case Kind::kBool: return check_scalar(value.get_if<bool>() != nullptr, place, "boolean");
    case Kind::kNull: return check_scalar(value.get_if<std::nullptr_t>() != nullptr, place, "null");
    case Kind::kNumber:
      return check_scalar(
          value.get_if<double>() || value.get_if<int64_t>() || value.get_if<uint64_t>(), place,
          "number");
    case Kind::kAny: return {};
    case Kind::kInteger: return check_integer(type, value, place);
    case Kind::kEnum: return check_enum(type, value, place);
    case Kind::kAlternate: return check_alternate(type, value, place);
    case Kind::kArray: return check_array(type, value, place);
    case Kind::kStruct:
    case Kind::kUnion: return check_struct(type, value, place);
  }
  PLATTER_ASSERT(false);
}

}  // namespace

Result<void> validate(const Type& type, const Json& arguments) {
  return check_struct(type, arguments, {});
}

}  // namespace platter::monitor
