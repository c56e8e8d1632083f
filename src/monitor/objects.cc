#include "monitor/objects.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "base/assert.h"
#include "base/try.h"
#include "monitor/authorization.h"
#include "monitor/secret_object.h"
#include "monitor/tls_objects.h"

namespace platter::monitor {

bool is_identifier(std::string_view id) {
  auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  if (id.empty() || !letter(id[0])) return false;
  return std::ranges::all_of(id, [&](char c) {
    return letter(c) || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
  });
}

Result<void> check_identifier(std::string_view id) {
  if (is_identifier(id)) return {};
  return std::unexpected(
      Error(EINVAL, "Parameter 'id' expects an identifier")
          .with_hint("Identifiers consist of letters, digits, '-', '.', '_', starting with a "
                     "letter."));
}

namespace {

std::unexpected<Error> taken(std::string_view id) {
  return fail(EEXIST, fmt::format("attempt to add duplicate property '{}' to object (type "
                                  "'container')",
                                  id));
}

std::vector<ObjectProperty> describe(const ObjectKind& kind, const base::Json* values) {
  std::vector<ObjectProperty> properties;
  for (const KindProperty& property : kind.properties) {
    const base::Json* value = values != nullptr ? values->find(property.name) : nullptr;
    properties.push_back({std::string(property.name), property.type,
                          value != nullptr ? *value : base::Json(std::string(property.fallback))});
  }
  return properties;
}

constexpr std::string_view kOwnTypes[] = {"iothread", "secret", "secret_keyring", "throttle-group"};

bool is_type(std::string_view type) {
  return std::ranges::find(kOwnTypes, type) != std::end(kOwnTypes) ||
         find_object_kind(type) != nullptr;
}

}  // namespace

std::vector<ObjectProperty> properties_of_type(std::string_view type) {
  if (type == "secret") return describe(SecretProperties());
  if (type == "secret_keyring") {
    SecretProperties secret;
    secret.serial = 0;
    return describe(secret);
  }
  if (const ObjectKind* kind = find_object_kind(type)) return describe(*kind, nullptr);
  if (type == "throttle-group") return describe(ThrottleGroup());
  if (type == "iothread") return describe(IoThread());
  return {};
}

Result<void> Objects::add(std::string_view definition) {
  PLATTER_ASSIGN(auto properties, Properties::parse(definition));
  return add(properties.take_values());
}

Result<void> Objects::add(base::Options definition) {
  Properties properties(std::move(definition));
  const auto type = properties.take("qom-type");
  if (!type) return fail(EINVAL, "Parameter 'qom-type' is missing");
  if (!is_type(*type)) {
    return fail(EINVAL, fmt::format("Parameter 'qom-type' does not accept value '{}'", *type));
  }
  const auto id = properties.take("id");
  if (!id) return fail(EINVAL, "Parameter 'id' is missing");
  PLATTER_ASSIGN(Object object, make(*type, *id, properties));
  std::lock_guard guard(mutex_);
  if (!objects_.emplace(*id, std::move(object)).second) return taken(*id);
  return {};
}

// A definition is understood before anything is done for it.
Result<Objects::Object> Objects::make(std::string_view type, const std::string& id,
                                      Properties& properties) const {
  const ObjectKind* kind = find_object_kind(type);
  const bool in_keyring = type == "secret_keyring";
  const bool is_secret = type == "secret" || in_keyring;
  SecretProperties secret;
  Object object = IoThread{};
  base::Json values;  // of a kind's properties
  if (kind != nullptr) {
    PLATTER_ASSIGN(values, read_properties(*kind, properties.take_values()));
    object = Defined{kind, describe(*kind, &values)};
  } else if (is_secret) {
    PLATTER_TRY(take_secret(properties, in_keyring, secret));
  } else if (type == "throttle-group") {
    PLATTER_ASSIGN(object, take_throttle_group(properties));
  } else {
    PLATTER_ASSIGN(object, take_io_thread(properties));
  }
  PLATTER_TRY(properties.check_empty());
  PLATTER_TRY(check_identifier(id));
  if (this->properties(id)) return taken(id);
  if (is_secret) {
    PLATTER_ASSIGN(auto bytes, make_secret(*this, secret));
    return Secret{in_keyring ? "secret_keyring" : "secret", std::move(bytes), describe(secret)};
  }
  if (kind != nullptr && kind->only_one) {
    for (const ObjectName& other : list()) {
      if (other.type == type)
        return fail(EINVAL, fmt::format("only one {} instance allowed", type));
    }
  }
  if (kind != nullptr && kind->parent == "tls-creds") {
    PLATTER_ASSIGN(std::get<Defined>(object).credentials,
                   load_tls_credentials(type, values, *this));
  }
  if (kind != nullptr && kind->parent == "authz") {
    PLATTER_ASSIGN(std::get<Defined>(object).access, AccessControl::make(type, values));
  }
  if (const auto* group = std::get_if<ThrottleGroup>(&object)) PLATTER_TRY(check_buckets(*group));
  if (const auto* thread = std::get_if<IoThread>(&object)) PLATTER_TRY(check_pool(*thread));
  return object;
}

Result<void> Objects::change(std::string_view id, base::Options values) {
  Properties properties(std::move(values));
  std::lock_guard guard(mutex_);
  const auto found = objects_.find(id);
  PLATTER_ASSERT(found != objects_.end());
  Object next = IoThread{};
  if (const auto* group = std::get_if<ThrottleGroup>(&found->second)) {
    PLATTER_ASSIGN(next, take_throttle_group(properties, *group));
    PLATTER_TRY(check_buckets(std::get<ThrottleGroup>(next)));
  } else if (const auto* thread = std::get_if<IoThread>(&found->second)) {
    PLATTER_ASSIGN(const IoThread changed, take_io_thread(properties, *thread));
    PLATTER_TRY(check_pool(changed));
    next = changed;
  } else {
    return fail(ENOTSUP, fmt::format("The properties of a {} cannot be set after it was made",
                                     type_of(found->second)));
  }
  PLATTER_TRY(properties.check_empty());
  found->second = std::move(next);
  return {};
}

Error object_in_use(std::string_view id) {
  return Error(EBUSY, fmt::format("object '{}' is in use, can not be deleted", id));
}

Result<void> Objects::remove(std::string_view id) {
  std::lock_guard guard(mutex_);
  const auto found = objects_.find(id);
  if (found == objects_.end()) return fail(ENOENT, fmt::format("object '{}' not found", id));
  const auto* defined = std::get_if<Defined>(&found->second);
  if (defined != nullptr && defined->kind->only_one) return std::unexpected(object_in_use(id));
  objects_.erase(found);
  return {};
}

std::string_view Objects::type_of(const Object& object) {
  if (const auto* secret = std::get_if<Secret>(&object)) return secret->type;
  if (const auto* defined = std::get_if<Defined>(&object)) return defined->kind->name;
  return std::holds_alternative<ThrottleGroup>(object) ? "throttle-group" : "iothread";
}

std::vector<ObjectName> Objects::list() const {
  std::lock_guard guard(mutex_);
  std::vector<ObjectName> all;
  for (const auto& [id, object] : objects_) all.push_back({id, type_of(object)});
  return all;
}

std::optional<std::vector<ObjectProperty>> Objects::properties(std::string_view id) const {
  std::lock_guard guard(mutex_);
  const auto found = objects_.find(id);
  if (found == objects_.end()) return std::nullopt;
  const Object& object = found->second;
  if (const auto* secret = std::get_if<Secret>(&object)) return secret->properties;
  if (const auto* defined = std::get_if<Defined>(&object)) return defined->properties;
  if (const auto* group = std::get_if<ThrottleGroup>(&object)) return describe(*group);
  return describe(std::get<IoThread>(object));
}

Result<base::SecretBytes> Objects::secret(std::string_view id) const {
  std::lock_guard guard(mutex_);
  const auto found = objects_.find(id);
  if (found == objects_.end()) return std::unexpected(block::no_such_secret(id));
  const auto* secret = std::get_if<Secret>(&found->second);
  if (secret == nullptr)
    return fail(EINVAL, fmt::format("Object with id '{}' is not a secret", id));
  return base::SecretBytes::copy_of(secret->bytes.span());
}

template <typename T>
std::optional<T> Objects::copy_of(std::string_view id) const {
  std::lock_guard guard(mutex_);
  const auto found = objects_.find(id);
  if (found == objects_.end()) return std::nullopt;
  const T* object = std::get_if<T>(&found->second);
  return object == nullptr ? std::nullopt : std::optional<T>(*object);
}

std::optional<ThrottleGroup> Objects::throttle_group(std::string_view id) const {
  return copy_of<ThrottleGroup>(id);
}

std::optional<IoThread> Objects::io_thread(std::string_view id) const {
  return copy_of<IoThread>(id);
}

std::shared_ptr<const crypto::TlsCredentials> Objects::tls_credentials(std::string_view id) const {
  const auto defined = copy_of<Defined>(id);
  return defined ? defined->credentials : nullptr;
}

std::shared_ptr<const AccessControl> Objects::access_control(std::string_view id) const {
  const auto defined = copy_of<Defined>(id);
  return defined ? defined->access : nullptr;
}

static std::string help_for_types() {
  std::vector<std::string_view> types(std::begin(kOwnTypes), std::end(kOwnTypes));
  for (const ObjectKind& kind : object_kinds()) types.push_back(kind.name);
  std::ranges::sort(types);
  std::string text = "List of user creatable objects:\n";
  for (const auto type : types) text += fmt::format("  {}\n", type);
  return text;
}

// A type that there is.
static std::vector<std::string> help_lines(std::string_view type) {
  std::vector<std::string> lines;
  auto add = [&lines](std::string_view name, std::string_view of) {
    lines.push_back(fmt::format("  {}=<{}>\n", name, of));
  };
  if (type == "throttle-group") {
    for (const std::string& name : limit_names()) add("limits." + name, "int");
    return lines;
  }
  for (const ObjectProperty& property : properties_of_type(type)) {
    if (property.name != "loaded") add(property.name, property.type);
  }
  if (type == "secret") add("data", "string");
  std::ranges::sort(lines);
  return lines;
}

std::string object_help(std::string_view definition) {
  const auto comma = definition.find(',');
  const auto type = definition.substr(0, comma);
  if (type == "help" || type == "?") return help_for_types();
  if (comma == definition.npos) return {};
  const auto rest = definition.substr(comma + 1);
  if (rest != "help" && rest != "?") return {};
  if (!is_type(type)) return help_for_types();
  std::string text = fmt::format("{} options:\n", type);
  for (const std::string& line : help_lines(type)) text += line;
  return text;
}

}  // namespace platter::monitor
