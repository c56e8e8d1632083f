#include "monitor/object_properties.h"

#include <fmt/format.h>

#include <cerrno>
#include <charconv>

#include "base/try.h"

namespace platter::monitor {
namespace {

std::string take_word(std::string_view& text) {
  std::string word;
  while (!text.empty()) {
    const char c = text.front();
    text.remove_prefix(1);
    if (c == ',' && !text.starts_with(',')) break;
    if (c == ',') text.remove_prefix(1);
    word += c;
  }
  return word;
}

}  // namespace

Result<Properties> Properties::parse(std::string_view text) {
  Properties properties;
  if (text.starts_with('{')) {
    PLATTER_ASSIGN(auto json, base::Json::parse(text));
    if (!json.is_object()) return fail(EINVAL, "Object definition must be a JSON object");
    PLATTER_ASSIGN(properties.values_, base::Options::from_json(json));
    return properties;
  }
  PLATTER_TRY(properties.parse_words(text));
  return properties;
}
std::optional<std::string> Properties::take(std::string_view name) {
  auto value = values_.find_string(name);
  if (value) values_.erase(name);
  return value;
}

Result<std::optional<int64_t>> Properties::take_integer(std::string_view name) {
  const auto* value = values_.find(name);
  if (value == nullptr) return std::optional<int64_t>();
  int64_t number = 0;
  bool good = true;
  if (const auto* text = std::get_if<std::string>(value)) {
    const auto [end, code] = std::from_chars(text->data(), text->data() + text->size(), number);
    good = code == std::errc() && end == text->data() + text->size();
  } else if (const auto* whole = std::get_if<int64_t>(value)) {
    number = *whole;
  } else if (const auto* large = std::get_if<uint64_t>(value); large && *large <= INT64_MAX) {
    number = static_cast<int64_t>(*large);
  } else {
    good = false;
  }
  if (!good) return fail(EINVAL, fmt::format("Parameter '{}' expects integer", name));
  values_.erase(name);
  return std::optional(number);
}

Result<void> Properties::check_empty() const {
  if (values_.empty()) return {};
  return fail(EINVAL, fmt::format("Parameter '{}' is unexpected", values_.entries().front().first));
}

// "secret,id=a": the first word may leave its key, the type's, out. A comma in a value is
// doubled.
Result<void> Properties::parse_words(std::string_view text) {
  for (bool first = true; !text.empty(); first = false) {
    const size_t equals = text.find('=');
    const size_t comma = text.find(',');
    std::string key = "qom-type";
    if (equals != text.npos && equals < comma) {
      key = text.substr(0, equals);
      text.remove_prefix(equals + 1);
    } else if (!first) {
      return fail(EINVAL, fmt::format("Expected '=' after parameter '{}'", text.substr(0, comma)));
    }
    values_.set(key, take_word(text));
  }
  return {};
}

}  // namespace platter::monitor
