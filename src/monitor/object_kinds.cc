#include "monitor/object_kinds.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>

#include "base/try.h"
#include "monitor/arguments.h"
#include "monitor/socket_address.h"

namespace platter::monitor {
namespace {

using base::Json;

struct Enum {
  std::string_view type;
  std::array<std::string_view, 2> values;
};
constexpr Enum kEnums[] = {{"QCryptoTLSCredsEndpoint", {"client", "server"}},
                           {"QAuthZListPolicy", {"deny", "allow"}},
                           {"QAuthZListFormat", {"exact", "glob"}}};
constexpr std::string_view kRules = "QAuthZListRule";

Result<Json> typed_enum(std::string_view type, const Json& value, std::string_view name) {
  const auto* text = value.get_if<std::string>();
  if (text == nullptr) return fail(EINVAL, fmt::format("Parameter '{}' expects a string", name));
  const auto& of = *std::ranges::find(kEnums, type, &Enum::type);
  if (std::ranges::find(of.values, *text) != of.values.end()) return value;
  return fail(EINVAL, fmt::format("Parameter '{}' does not accept value '{}'", name, *text));
}

Result<Json> typed_flag(const Json& value, std::string_view name) {
  if (value.get_if<bool>() != nullptr) return value;
  const auto* text = value.get_if<std::string>();
  if (text != nullptr && (*text == "on" || *text == "yes" || *text == "true")) return Json(true);
  if (text != nullptr && (*text == "off" || *text == "no" || *text == "false")) return Json(false);
  return fail(EINVAL, fmt::format("Parameter '{}' expects 'on' or 'off'", name));
}

Result<Json> typed_integer(const Json& value, std::string_view name) {
  if (value.get_if<int64_t>() != nullptr) return value;
  const auto* large = value.get_if<uint64_t>();
  if (large != nullptr && *large <= INT64_MAX) return Json(static_cast<int64_t>(*large));
  int64_t number = 0;
  if (const auto* text = value.get_if<std::string>()) {
    const auto [end, code] = std::from_chars(text->data(), text->data() + text->size(), number);
    if (code == std::errc() && end == text->data() + text->size()) return Json(number);
  }
  return fail(EINVAL, fmt::format("Parameter '{}' expects integer", name));
}

Result<Json> typed_rule(const Json& rule, const std::string& place) {
  if (!rule.is_object()) return fail(EINVAL, fmt::format("Parameter '{}' expects object", place));
  for (const auto& [key, value] : *rule.get_if<Json::Object>()) {
    if (key != "match" && key != "policy" && key != "format")
      return fail(EINVAL, fmt::format("Parameter '{}.{}' is unexpected", place, key));
  }
  for (const auto* needed : {"match", "policy"}) {
    if (rule.find(needed) == nullptr)
      return fail(EINVAL, fmt::format("Parameter '{}.{}' is missing", place, needed));
  }
  if (rule.find("match")->get_if<std::string>() == nullptr)
    return fail(EINVAL, fmt::format("Parameter '{}.match' expects a string", place));
  PLATTER_TRY(typed_enum("QAuthZListPolicy", *rule.find("policy"), "policy"));
  if (const Json* format = rule.find("format"))
    PLATTER_TRY(typed_enum("QAuthZListFormat", *format, "format"));
  return rule;
}

Result<Json> typed(const KindProperty& property, const Json& value) {
  if (property.type == "bool") return typed_flag(value, property.name);
  if (property.type == "int") return typed_integer(value, property.name);
  if (property.type != "string") return typed_enum(property.type, value, property.name);
  if (value.get_if<std::string>() != nullptr) return value;
  return fail(EINVAL, fmt::format("Parameter '{}' expects a string", property.name));
}

Result<Json> typed_rules(const Json& value) {
  const auto* items = value.get_if<Json::Array>();
  if (items == nullptr) return fail(EINVAL, "Parameter 'rules' expects a list");
  Json rules = Json::array();
  for (size_t i = 0; i < items->size(); ++i) {
    PLATTER_ASSIGN(Json rule, typed_rule((*items)[i], fmt::format("rules.{}", i)));
    rules.append(std::move(rule));
  }
  return rules;
}

Result<Json> take_rules(base::Options& given) {
  const Json all = given.to_json();
  given.take_subtree("rules");
  const Json* said = all.find("rules");
  if (said == nullptr) return Json::array();
  return typed_rules(*said);
}

// ---- Checks

Result<void> check_main_loop(const Json& json) {
  const Arguments values(json);
  for (const auto& [name, value] : *json.get_if<Json::Object>()) {
    if (values.integer(name) < 0)
      return fail(EINVAL, fmt::format("{} value must be in range [0, {}]", name, INT64_MAX));
  }
  const int64_t most = values.integer("thread-pool-max");
  if (most == 0 || values.integer("thread-pool-min") > most)
    return fail(EINVAL, "bad thread-pool-min/thread-pool-max values");
  return {};
}

// Whether it is there: nobody here has reservations to make.
Result<void> check_reservation_helper(const Json& json) {
  SocketAddress address;
  address.path = Arguments(json).text("path");
  PLATTER_TRY(connect_to(address));
  return {};
}

// ---- The kinds

constexpr KindProperty kAnonymous[] = {
    {"dir", "string"},
    {"endpoint", "QCryptoTLSCredsEndpoint", "client"},
    {"priority", "string"},
    {"verify-peer", "bool", "on"},
};
constexpr KindProperty kSharedKeys[] = {
    {"dir", "string"},
    {"endpoint", "QCryptoTLSCredsEndpoint", "client"},
    {"priority", "string"},
    {"username", "string"},
    {"verify-peer", "bool", "on"},
};
constexpr KindProperty kCertificates[] = {
    {"dir", "string"},
    {"endpoint", "QCryptoTLSCredsEndpoint", "client"},
    {"passwordid", "string"},
    {"priority", "string"},
    {"sanity-check", "bool", "on"},
    {"verify-peer", "bool", "on"},
};
constexpr KindProperty kIdentity[] = {{.name = "identity", .type = "string", .required = true}};
constexpr KindProperty kList[] = {{"policy", "QAuthZListPolicy", "deny"}, {"rules", kRules}};
constexpr KindProperty kListFile[] = {
    {.name = "filename", .type = "string", .required = true},
    {"refresh", "bool", "on"},
};
constexpr KindProperty kMainLoop[] = {
    {"aio-max-batch", "int", "0"},
    {"thread-pool-max", "int", "64"},
    {"thread-pool-min", "int", "0"},
};
constexpr KindProperty kHelper[] = {{.name = "path", .type = "string", .required = true}};

constexpr ObjectKind kKinds[] = {
    {"authz-list", "authz", kList},
    {"authz-listfile", "authz", kListFile},
    {"authz-simple", "authz", kIdentity},
    {"main-loop", "event-loop-base", kMainLoop, check_main_loop, true},
    {"pr-manager-helper", "pr-manager", kHelper, check_reservation_helper},
    {"tls-creds-anon", "tls-creds", kAnonymous},
    {"tls-creds-psk", "tls-creds", kSharedKeys},
    {"tls-creds-x509", "tls-creds", kCertificates},
};

}  // namespace

std::span<const ObjectKind> object_kinds() { return kKinds; }

const ObjectKind* find_object_kind(std::string_view name) {
  const auto found = std::ranges::find(kKinds, name, &ObjectKind::name);
  return found == std::end(kKinds) ? nullptr : &*found;
}

Result<Json> read_properties(const ObjectKind& kind, base::Options given) {
  Json values = Json::object();
  for (const KindProperty& property : kind.properties) {
    if (property.type == kRules) {
      PLATTER_ASSIGN(Json rules, take_rules(given));
      values.add(std::string(property.name), std::move(rules));
      continue;
    }
    const auto* said = given.find(property.name);
    if (said == nullptr && property.required)
      return fail(EINVAL, fmt::format("Parameter '{}' is missing", property.name));
    base::Options one;
    one.set("value", said != nullptr ? *said : std::string(property.fallback));
    const Json json = one.to_json();
    PLATTER_ASSIGN(Json value, typed(property, *json.find("value")));
    values.add(std::string(property.name), std::move(value));
    given.erase(property.name);
  }
  if (!given.empty()) {
    return fail(EINVAL, fmt::format("Parameter '{}' is unexpected", given.entries().front().first));
  }
  if (kind.check != nullptr) PLATTER_TRY(kind.check(values));
  return values;
}

Result<Json> read_access_list(const Json& list) {
  if (!list.is_object()) return fail(EINVAL, "an object is expected");
  for (const auto& [name, value] : *list.get_if<Json::Object>()) {
    if (name != "policy" && name != "rules")
      return fail(EINVAL, fmt::format("Parameter '{}' is unexpected", name));
  }
  Json policy = "deny", rules = Json::array();
  if (const Json* said = list.find("policy")) {
    PLATTER_ASSIGN(policy, typed_enum("QAuthZListPolicy", *said, "policy"));
  }
  if (const Json* said = list.find("rules")) {
    PLATTER_ASSIGN(rules, typed_rules(*said));
  }
  Json values = Json::object();
  values.add("policy", std::move(policy));
  values.add("rules", std::move(rules));
  return values;
}

}  // namespace platter::monitor
