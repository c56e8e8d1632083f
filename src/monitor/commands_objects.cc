// Commands about what is no node: objects, exports.
#include <fmt/format.h>

#include <algorithm>

#include "base/try.h"
#include "monitor/commands.h"
#include "monitor/devices.h"
#include "monitor/validate.h"

namespace platter::monitor {
namespace {

using base::Json;

// ---- Objects

io::Task<Reply> object_add(Control& control, Arguments arguments) {
  auto definition = base::Options::from_json(arguments.json());
  if (!definition) return ready(std::unexpected(Failure(definition.error())));
  // A remnant of how objects were made once; it says what is so anyway.
  definition->erase("loaded");
  auto added = control.objects().add(std::move(*definition));
  if (!added) return ready(std::unexpected(Failure(added.error())));
  return ready(done());
}

io::Task<Reply> object_del(Control& control, Arguments arguments) {
  const std::string& id = arguments.text("id");
  const Devices* devices = control.devices();
  if (control.exports().use_io_thread(id) || (devices != nullptr && devices->use_io_thread(id)))
    return ready(std::unexpected(Failure(object_in_use(id))));
  auto removed = control.objects().remove(id);
  if (!removed) return ready(std::unexpected(Failure(removed.error())));
  return ready(done());
}

// The tree that objects stand in: "/objects/ID".
constexpr std::string_view kContainer = "container";
constexpr std::string_view kChildPrefix = "child<";

std::vector<ObjectProperty> root_properties() {
  return {{"type", "string", kContainer}, {"objects", "child<container>", "/objects"}};
}

struct QomObject {
  std::string_view type;
  std::vector<ObjectProperty> properties;
};

// By an absolute path, or by what follows "/objects/" in one.
std::optional<QomObject> find_object(const Objects& objects, std::string_view path) {
  if (path == "/") return QomObject{kContainer, root_properties()};
  if (path == "/objects" || path == "objects") {
    QomObject container{kContainer, {{"type", "string", kContainer}}};
    for (const ObjectName& name : objects.list())
      container.properties.push_back({name.id, "child", "/objects/" + name.id});
    return container;
  }
  constexpr std::string_view kPrefix = "/objects/";
  if (path.starts_with(kPrefix)) path.remove_prefix(kPrefix.size());
  auto properties = objects.properties(path);
  if (!properties) return std::nullopt;
  for (const ObjectName& name : objects.list()) {
    if (name.id != path) continue;
    properties->insert(properties->begin(), {"type", "string", name.type});
    return QomObject{name.type, std::move(*properties)};
  }
  return std::nullopt;
}

std::string shown_type(const Objects& objects, const ObjectProperty& property) {
  if (property.type != "child") return std::string(property.type);
  for (const ObjectName& name : objects.list()) {
    if (name.id == property.name) return fmt::format("{}{}>", kChildPrefix, name.type);
  }
  return std::string(property.type);
}

io::Task<Reply> qom_list(Control& control, Arguments arguments) {
  const std::string& path = arguments.text("path");
  if (path.empty()) return ready(refuse("Path '' is ambiguous"));
  const auto object = find_object(control.objects(), path);
  if (!object) return ready(not_found(fmt::format("Device '{}' not found", path)));
  Json list = Json::array();
  for (const ObjectProperty& property : object->properties) {
    Json& one = list.append(Json::object());
    one.add("name", property.name);
    one.add("type", shown_type(control.objects(), property));
  }
  return ready(std::move(list));
}

io::Task<Reply> qom_get(Control& control, Arguments arguments) {
  const std::string& path = arguments.text("path");
  const auto object = find_object(control.objects(), path);
  if (!object) return ready(not_found(fmt::format("Device '{}' not found", path)));
  const std::string& wanted = arguments.text("property");
  for (const ObjectProperty& property : object->properties) {
    if (property.name == wanted) return ready(property.value);
  }
  return ready(refuse(fmt::format("Property '{}.{}' not found", object->type, wanted)));
}

std::unexpected<Failure> not_writable(std::string_view type, std::string_view property) {
  return refuse(fmt::format("Property '{}.{}' is not writable", type, property));
}

// What the schema says of an object's definition; null: nothing that may be set later.
const Type* definition_of(const Schema& schema, std::string_view type) {
  if (type == "iothread") return schema.find_type("IothreadProperties");
  if (type == "throttle-group") return schema.find_type("ThrottleGroupProperties");
  return nullptr;
}

Reply set_property(Control& control, Arguments arguments) {
  const std::string& path = arguments.text("path");
  const auto object = find_object(control.objects(), path);
  if (!object) return not_found(fmt::format("Device '{}' not found", path));
  const std::string& name = arguments.text("property");
  if (std::ranges::find(object->properties, name, &ObjectProperty::name) ==
      object->properties.end())
    return refuse(fmt::format("Property '{}.{}' not found", object->type, name));
  const Type* definition = definition_of(control.schema(), object->type);
  if (definition == nullptr || definition->member(name) == nullptr)
    return not_writable(object->type, name);
  // The throttle group's older names are for its making.
  if (name.starts_with("x-")) return refuse("Property cannot be set after initialization");
  Json wish = Json::object();
  wish.add(name, arguments.at("value"));
  PLATTER_TRY(validate(*definition, wish));
  PLATTER_ASSIGN(base::Options properties, base::Options::from_json(wish));
  PLATTER_TRY(control.objects().change(path.substr(path.rfind('/') + 1), std::move(properties)));
  return done();
}

io::Task<Reply> qom_set(Control& control, Arguments arguments) {
  return ready(set_property(control, arguments));
}

struct ObjectType {
  std::string_view name;
  std::string_view parent;  // empty: none
  bool abstract = false;
  bool creatable = false;  // by object-add
};
constexpr ObjectType kObjectTypes[] = {
    {.name = "authz", .parent = "object", .abstract = true},
    {.name = "authz-list", .parent = "authz", .creatable = true},
    {.name = "authz-listfile", .parent = "authz", .creatable = true},
    {.name = "authz-simple", .parent = "authz", .creatable = true},
    {.name = "container", .parent = "object"},
    {.name = "event-loop-base", .parent = "object", .abstract = true},
    {.name = "iothread", .parent = "event-loop-base", .creatable = true},
    {.name = "main-loop", .parent = "event-loop-base", .creatable = true},
    {.name = "object", .parent = "", .abstract = true},
    {.name = "pr-manager", .parent = "object", .abstract = true},
    {.name = "pr-manager-helper", .parent = "pr-manager", .creatable = true},
    {.name = "secret", .parent = "secret_common", .creatable = true},
    {.name = "secret_common", .parent = "object", .abstract = true},
    {.name = "secret_keyring", .parent = "secret_common", .creatable = true},
    {.name = "throttle-group", .parent = "object", .creatable = true},
    {.name = "tls-creds", .parent = "object", .abstract = true},
    {.name = "tls-creds-anon", .parent = "tls-creds", .creatable = true},
    {.name = "tls-creds-psk", .parent = "tls-creds", .creatable = true},
    {.name = "tls-creds-x509", .parent = "tls-creds", .creatable = true},
};
constexpr std::string_view kCreatable = "user-creatable";

const ObjectType* find_object_type(std::string_view name) {
  const auto found = std::ranges::find(kObjectTypes, name, &ObjectType::name);
  return found == std::end(kObjectTypes) ? nullptr : &*found;
}

bool is_of_type(const ObjectType& type, std::string_view wanted) {
  if (wanted == kCreatable) return type.creatable;
  for (const ObjectType* one = &type; one != nullptr; one = find_object_type(one->parent)) {
    if (one->name == wanted) return true;
  }
  return false;
}

io::Task<Reply> qom_list_types(Control&, Arguments arguments) {
  Json list = Json::array();
  for (const ObjectType& type : kObjectTypes) {
    if (type.abstract && !arguments.flag("abstract")) continue;
    if (arguments.has("implements") && !is_of_type(type, arguments.text("implements"))) continue;
    Json& one = list.append(Json::object());
    one.add("name", type.name);
    if (type.abstract) one.add("abstract", true);
    if (!type.parent.empty()) one.add("parent", type.parent);
  }
  return ready(std::move(list));
}

io::Task<Reply> qom_list_properties(Control&, Arguments arguments) {
  const std::string& name = arguments.text("typename");
  if (name == kCreatable) return ready(refuse("Parameter 'typename' expects a QOM type"));
  if (find_object_type(name) == nullptr)
    return ready(not_found(fmt::format("Class '{}' not found", name)));
  Json list = Json::array();
  auto add = [&list](std::string_view property, std::string_view type) {
    Json& one = list.append(Json::object());
    one.add("name", property);
    one.add("type", type);
  };
  add("type", "string");
  for (const ObjectProperty& property : properties_of_type(name)) add(property.name, property.type);
  return ready(std::move(list));
}

// ---- Exports

io::Task<Reply> block_export_add(Control& control, Arguments arguments) {
  return control.exports().add(arguments.json());
}

io::Task<Reply> block_export_del(Control& control, Arguments arguments) {
  const bool hard = arguments.text_or_empty("mode") == "hard";
  return control.exports().remove(arguments.text("id"),
                                  hard ? Exports::Mode::kHard : Exports::Mode::kSafe);
}

io::Task<Reply> query_block_exports(Control& control, Arguments) {
  return ready(control.exports().list());
}

constexpr CommandFunction kCommands[] = {
    {"object-add", object_add},
    {"object-del", object_del},
    {"qom-list", qom_list},
    {"qom-get", qom_get},
    {"qom-set", qom_set},
    {"qom-list-types", qom_list_types},
    {"qom-list-properties", qom_list_properties},
    {"block-export-add", block_export_add},
    {"block-export-del", block_export_del},
    {"query-block-exports", query_block_exports},
};

}  // namespace

std::span<const CommandFunction> object_commands() { return kCommands; }

}  // namespace platter::monitor
