#include "base/options.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>

#include "base/assert.h"
#include "base/size.h"
#include "base/try.h"

namespace platter::base {
namespace {

// Takes text off `rest` up to a single comma (and the comma), doubled commas standing for one.
std::string take_value(std::string_view& rest) {
  std::string value;
  while (!rest.empty()) {
    char c = rest.front();
    rest.remove_prefix(1);
    if (c == ',') {
      if (rest.empty() || rest.front() != ',') break;
      rest.remove_prefix(1);
    }
    value += c;
  }
  return value;
}

void flatten(const std::string& prefix, const Json& value, Options& out) {
  if (const auto* object = value.get_if<Json::Object>()) {
    for (const auto& [key, member] : *object) {
      flatten(prefix.empty() ? key : fmt::format("{}.{}", prefix, key), member, out);
    }
  } else if (const auto* array = value.get_if<Json::Array>()) {
    for (size_t i = 0; i < array->size(); ++i) {
      flatten(fmt::format("{}.{}", prefix, i), (*array)[i], out);
    }
  } else {
    std::visit(
        [&]<typename T>(const T& scalar) {
          if constexpr (!std::is_same_v<T, Json::Array> && !std::is_same_v<T, Json::Object>) {
            out.set(prefix, scalar);
          }
        },
        value.value());
  }
}

Json to_scalar(const OptionValue& value) {
  return std::visit([](const auto& scalar) { return Json(scalar); }, value);
}

bool has_index_keys(const Json::Object& object) {
  for (size_t i = 0; i < object.size(); ++i) {
    if (object[i].first != fmt::format("{}", i)) return false;
  }
  return !object.empty();
}

// Dotted keys nest at their first dot, level by level. A key that is both a value and a prefix of
// others keeps its value, and the others their dots.
Json nest(const std::vector<Options::Entry>& entries, bool top) {
  struct Group {
    std::string head;
    const OptionValue* value = nullptr;
    std::vector<Options::Entry> below;
  };
  std::vector<Group> groups;
  auto group = [&](std::string_view head) -> Group& {
    auto found = std::ranges::find(groups, head, &Group::head);
    if (found != groups.end()) return *found;
    return groups.emplace_back(Group{std::string(head), nullptr, {}});
  };
  for (const auto& [key, value] : entries) {
    size_t dot = key.find('.');
    if (dot == std::string::npos) {
      group(key).value = &value;
    } else {
      group(std::string_view(key).substr(0, dot)).below.emplace_back(key.substr(dot + 1), value);
    }
  }

  Json::Object object;
  for (const Group& member : groups) {
    if (member.value == nullptr) {
      object.emplace_back(member.head, nest(member.below, false));
      continue;
    }
    object.emplace_back(member.head, to_scalar(*member.value));
    for (const auto& [key, value] : member.below) {
      object.emplace_back(member.head + "." + key, to_scalar(value));
    }
  }
  if (top || !has_index_keys(object)) return Json(std::move(object));
  Json::Array array;
  for (auto& member : object) array.push_back(std::move(member.second));
  return Json(std::move(array));
}

// ---- Values

// Texts as qemu-img has them: scripts look for these.
std::unexpected<Error> not_a_size(std::string_view name) {
  return std::unexpected(
      Error(EINVAL, fmt::format("Parameter '{}' expects a non-negative number below 2^64", name))
          .with_hint("Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n"
                     "and exabytes, respectively."));
}

Result<bool> to_bool(const OptionDef& def, const OptionValue& value) {
  if (const auto* flag = std::get_if<bool>(&value)) return *flag;
  if (const auto* text = std::get_if<std::string>(&value)) {
    if (*text == "on" || *text == "yes" || *text == "true" || *text == "y") return true;
    if (*text == "off" || *text == "no" || *text == "false" || *text == "n") return false;
  }
  return fail(EINVAL, fmt::format("Parameter '{}' expects 'on' or 'off'", def.name));
}

// A number as C writes them: 16, 0x10, 020. A negative one wraps, as it does for qemu-img; the
// range of the option then refuses it.
Result<uint64_t> text_to_number(const OptionDef& def, const std::string& text) {
  const char* begin = text.c_str();
  char* end = nullptr;
  errno = 0;
  uint64_t number = std::strtoull(begin, &end, 0);
  int error = errno;
  if (end == begin || end != begin + text.size()) {
    return fail(EINVAL, fmt::format("Parameter '{}' expects a number", def.name));
  }
  if (error == ERANGE) {
    return fail(ERANGE, fmt::format("Value '{}' is too large for parameter '{}'", text, def.name));
  }
  return number;
}

Result<uint64_t> text_to_size(const OptionDef& def, const std::string& text) {
  Result<uint64_t> size = parse_wide_size(text);
  if (size) return size;
  if (size.error().code() != ERANGE) return not_a_size(def.name);
  return fail(ERANGE, fmt::format("Value '{}' is out of range for parameter '{}'", text, def.name));
}

Result<uint64_t> to_number(const OptionDef& def, const OptionValue& value) {
  if (const auto* number = std::get_if<uint64_t>(&value)) return *number;
  if (const auto* number = std::get_if<int64_t>(&value); number != nullptr && *number >= 0) {
    return static_cast<uint64_t>(*number);
  }
  if (const auto* text = std::get_if<std::string>(&value)) {
    return def.type == OptionType::kSize ? text_to_size(def, *text) : text_to_number(def, *text);
  }
  if (def.type == OptionType::kSize) return not_a_size(def.name);
  return fail(EINVAL, fmt::format("Parameter '{}' expects a number", def.name));
}

Result<uint64_t> to_number_in_range(const OptionDef& def, const OptionValue& value) {
  PLATTER_ASSIGN(uint64_t number, to_number(def, value));
  if (number < def.min || number > def.max) {
    return fail(ERANGE, fmt::format("Parameter '{}' must be between {} and {}", def.name, def.min,
                                    def.max));
  }
  return number;
}

Result<std::string> to_text(const OptionDef& def, const OptionValue& value) {
  const auto* text = std::get_if<std::string>(&value);
  if (text == nullptr) {
    return fail(EINVAL, fmt::format("Invalid parameter type for '{}', expected: string", def.name));
  }
  if (!def.choices.empty() && std::ranges::find(def.choices, *text) == def.choices.end()) {
    return fail(EINVAL, fmt::format("Parameter '{}' does not accept value '{}'", def.name, *text));
  }
  return *text;
}

using TypedValue = std::variant<bool, uint64_t, std::string>;

template <typename T>
Result<TypedValue> widen(Result<T> value) {
  if (!value) return std::unexpected(std::move(value).error());
  return TypedValue(std::move(*value));
}

Result<TypedValue> to_typed(const OptionDef& def, const OptionValue& value) {
  switch (def.type) {
    case OptionType::kBool: return widen(to_bool(def, value));
    case OptionType::kString: return widen(to_text(def, value));
    case OptionType::kNumber:
    case OptionType::kSize: return widen(to_number_in_range(def, value));
  }
  __builtin_unreachable();
}

std::string_view type_name(OptionType type) {
  switch (type) {
    case OptionType::kString: return "str";
    case OptionType::kBool: return "bool (on/off)";
    case OptionType::kNumber: return "num";
    case OptionType::kSize: return "size";
  }
  __builtin_unreachable();
}

}  // namespace

// ---- Options

Result<Options> Options::from_key_values(std::string_view text, std::string_view implied_key) {
  Options options;
  bool first = true;
  for (std::string_view rest = text; !rest.empty(); first = false) {
    size_t end = std::min(rest.find_first_of("=,"), rest.size());
    if (end < rest.size() && rest[end] == '=') {
      std::string_view key = rest.substr(0, end);
      rest.remove_prefix(end + 1);
      options.set(key, take_value(rest));
    } else if (first && !implied_key.empty()) {
      options.set(implied_key, take_value(rest));
    } else {
      std::string_view word = rest.substr(0, end);
      rest.remove_prefix(std::min(end + 1, rest.size()));
      bool negated = word.starts_with("no");
      options.set(negated ? word.substr(2) : word, std::string(negated ? "off" : "on"));
    }
  }
  return options;
}

Result<Options> Options::from_json(const Json& object) {
  if (!object.is_object()) return fail(EINVAL, "Invalid JSON object given");
  Options options;
  flatten({}, object, options);
  return options;
}

Result<Options> Options::from_json_text(std::string_view text) {
  Result<Json> json = Json::parse(text);
  if (!json) {
    return std::unexpected(
        std::move(json).error().with_context("Could not parse the JSON options"));
  }
  return from_json(*json);
}

Json Options::to_json() const { return nest(entries_, true); }

const OptionValue* Options::find(std::string_view key) const {
  auto found = std::ranges::find(entries_, key, &Entry::first);
  return found == entries_.end() ? nullptr : &found->second;
}

std::optional<std::string> Options::find_string(std::string_view key) const {
  const OptionValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  const auto* text = std::get_if<std::string>(value);
  if (text == nullptr) return std::nullopt;
  return *text;
}

void Options::set(std::string_view key, OptionValue value) {
  auto found = std::ranges::find(entries_, key, &Entry::first);
  if (found != entries_.end()) {
    found->second = std::move(value);
  } else {
    entries_.emplace_back(std::string(key), std::move(value));
  }
}

bool Options::erase(std::string_view key) {
  return std::erase_if(entries_, [&](const Entry& entry) { return entry.first == key; }) != 0;
}

void Options::merge_defaults(const Options& other) {
  for (const auto& [key, value] : other.entries_) {
    if (find(key) == nullptr) entries_.emplace_back(key, value);
  }
}

Options Options::take_subtree(std::string_view prefix) {
  std::string start = std::string(prefix) + ".";
  Options taken;
  std::vector<Entry> kept;
  for (Entry& entry : entries_) {
    if (entry.first.starts_with(start)) {
      taken.entries_.emplace_back(entry.first.substr(start.size()), std::move(entry.second));
    } else {
      kept.push_back(std::move(entry));
    }
  }
  entries_ = std::move(kept);
  return taken;
}

bool Options::has_subtree(std::string_view prefix) const {
  std::string start = std::string(prefix) + ".";
  return std::ranges::any_of(entries_,
                             [&](const Entry& entry) { return entry.first.starts_with(start); });
}

// ---- OptionSet

const OptionSet::Item& OptionSet::item(std::string_view name) const {
  auto found = std::ranges::find_if(items_, [&](const Item& i) { return i.def->name == name; });
  PLATTER_ASSERT(found != items_.end());
  return *found;
}

bool OptionSet::get_bool(std::string_view name) const {
  const Item& found = item(name);
  PLATTER_ASSERT(found.value && std::holds_alternative<bool>(*found.value));
  return std::get<bool>(*found.value);
}

uint64_t OptionSet::get_number(std::string_view name) const {
  const Item& found = item(name);
  PLATTER_ASSERT(found.value && std::holds_alternative<uint64_t>(*found.value));
  return std::get<uint64_t>(*found.value);
}

const std::string& OptionSet::get_string(std::string_view name) const {
  const Item& found = item(name);
  PLATTER_ASSERT(found.value && std::holds_alternative<std::string>(*found.value));
  return std::get<std::string>(*found.value);
}

bool OptionSet::has(std::string_view name) const { return item(name).value.has_value(); }
bool OptionSet::given(std::string_view name) const { return item(name).given; }

// ---- OptionSchema

const OptionDef* OptionSchema::find(std::string_view name) const {
  auto found = std::ranges::find(defs_, name, &OptionDef::name);
  return found == defs_.end() ? nullptr : &*found;
}

Result<OptionSet> OptionSchema::parse(const Options& options) const {
  Options rest = options;
  PLATTER_ASSIGN(OptionSet set, take(rest));
  if (!rest.empty()) {
    return fail(EINVAL, fmt::format("Invalid parameter '{}'", rest.entries().front().first));
  }
  return set;
}

Result<OptionSet> OptionSchema::take(Options& options) const {
  OptionSet set;
  set.items_.reserve(defs_.size());
  for (const OptionDef& def : defs_) {
    OptionSet::Item item{&def, std::nullopt, false};
    if (const OptionValue* value = options.find(def.name)) {
      PLATTER_ASSIGN(item.value, to_typed(def, *value));
      item.given = true;
    } else if (!def.default_value.empty()) {
      auto typed = to_typed(def, std::string(def.default_value));
      PLATTER_ASSERT(typed.has_value());
      item.value = std::move(*typed);
    }
    set.items_.push_back(std::move(item));
  }
  for (const OptionDef& def : defs_) options.erase(def.name);
  return set;
}

std::string OptionSchema::help_text() const {
  std::vector<const OptionDef*> sorted;
  for (const OptionDef& def : defs_) sorted.push_back(&def);
  std::ranges::sort(sorted, {}, &OptionDef::name);
  std::string text;
  for (const OptionDef* def : sorted) {
    std::string line = fmt::format("  {}=<{}>", def->name, type_name(def->type));
    if (!def->help.empty()) line = fmt::format("{:<24} - {}", line, def->help);
    text += line + "\n";
  }
  return text;
}

}  // namespace platter::base
