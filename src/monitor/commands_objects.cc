// Commands about what is no node: objects, character devices, exports.
#include <fmt/format.h>

#include "base/try.h"
#include "monitor/commands.h"

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
  auto removed = control.objects().remove(arguments.text("id"));
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

// ---- Character devices

io::Task<Reply> query_chardev(Control& control, Arguments) {
  return ready(control.chardevs() == nullptr ? Json::array() : control.chardevs()->list());
}

io::Task<Reply> query_chardev_backends(Control& control, Arguments) {
  Json list = Json::array();
  for (const EnumValue& kind : control.schema().find_type("ChardevBackendKind")->values)
    list.append(Json::object()).add("name", kind.name);
  return ready(std::move(list));
}

io::Task<Reply> chardev_add(Control& control, Arguments arguments) {
  if (control.chardevs() == nullptr) return ready(refuse("Character devices cannot be added here"));
  auto added = control.chardevs()->add(arguments.text("id"), arguments.at("backend"));
  if (!added) return ready(std::unexpected(Failure(added.error())));
  return ready(done());
}

io::Task<Reply> chardev_remove(Control& control, Arguments arguments) {
  const std::string& id = arguments.text("id");
  if (control.chardevs() == nullptr)
    return ready(refuse(fmt::format("Chardev '{}' not found", id)));
  auto removed = control.chardevs()->remove(id);
  if (!removed) return ready(std::unexpected(Failure(removed.error())));
  return ready(done());
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
    {"query-chardev", query_chardev},
    {"query-chardev-backends", query_chardev_backends},
    {"chardev-add", chardev_add},
    {"chardev-remove", chardev_remove},
    {"block-export-add", block_export_add},
    {"block-export-del", block_export_del},
    {"query-block-exports", query_block_exports},
};

}  // namespace

std::span<const CommandFunction> object_commands() { return kCommands; }

}  // namespace platter::monitor
