#include "monitor/introspection.h"

#include <fmt/format.h>

#include <map>
#include <vector>

namespace platter::monitor {
namespace {

using base::Json;
using Kind = Type::Kind;

class Introspection {
 public:
  explicit Introspection(const Schema& schema) : schema_(schema) {}

  Json run() {
    // The first number stands for what has no members.
    name(schema_.empty_object());
    for (const CommandSchema& command : schema_.commands()) {
      Json entity = make(command.name, "command", command.features);
      entity.add("arg-type", name(*command.arguments));
      entity.add("ret-type",
                 name(command.result == nullptr ? schema_.empty_object() : *command.result));
      all_.append(std::move(entity));
    }
    for (const EventSchema& event : schema_.events()) {
      Json entity = make(event.name, "event", event.features);
      entity.add("arg-type", name(*event.data));
      all_.append(std::move(entity));
    }
    // Describing a type brings others to light.
    for (size_t i = 0; i < wanted_.size(); ++i) describe(*wanted_[i]);
    return std::move(all_);
  }

 private:
  static Json feature_list(const Features& features) {
    Json list = Json::array();
    for (const auto feature : features) list.append(feature);
    return list;
  }
  static void add_features(Json& entity, const Features& features) {
    if (!features.empty()) entity.add("features", feature_list(features));
  }
  static Json make(std::string_view name, std::string_view meta, const Features& features) {
    Json entity = Json::object();
    entity.add("name", name);
    entity.add("meta-type", meta);
    add_features(entity, features);
    return entity;
  }

  // All integers are the same to a client.
  const Type& shown(const Type& type) const {
    return type.kind == Kind::kInteger ? *schema_.find_type("int") : type;
  }

  std::string name(const Type& given) {
    const Type& type = shown(given);
    const auto known = names_.find(&type);
    if (known != names_.end()) return known->second;
    std::string made;
    switch (type.kind) {
      case Kind::kString:
      case Kind::kBool:
      case Kind::kNumber:
      case Kind::kInteger:
      case Kind::kAny:
      case Kind::kNull: made = type.name; break;
      case Kind::kArray: made = fmt::format("[{}]", name(*type.element)); break;
      default: made = fmt::format("{}", numbers_++);
    }
    names_.emplace(&type, made);
    wanted_.push_back(&type);
    return made;
  }

  void describe(const Type& type) {
    switch (type.kind) {
      case Kind::kString: return describe_builtin(type, "string");
      case Kind::kBool: return describe_builtin(type, "boolean");
      case Kind::kNumber: return describe_builtin(type, "number");
      case Kind::kInteger: return describe_builtin(type, "int");
      case Kind::kAny: return describe_builtin(type, "value");
      case Kind::kNull: return describe_builtin(type, "null");
      case Kind::kArray: {
        Json entity = make(name(type), "array", type.features);
        entity.add("element-type", name(*type.element));
        all_.append(std::move(entity));
        return;
      }
      case Kind::kEnum: return describe_enum(type);
      case Kind::kStruct:
      case Kind::kUnion: return describe_object(type);
      case Kind::kAlternate: {
        Json entity = make(name(type), "alternate", type.features);
        Json members = Json::array();
        for (const Type* alternative : type.alternatives)
          members.append(Json::object()).add("type", name(*alternative));
        entity.add("members", std::move(members));
        all_.append(std::move(entity));
        return;
      }
    }
  }

  void describe_builtin(const Type& type, std::string_view json_type) {
    Json entity = make(type.name, "builtin", {});
    entity.add("json-type", json_type);
    all_.append(std::move(entity));
  }

  void describe_enum(const Type& type) {
    Json entity = make(name(type), "enum", type.features);
    Json members = Json::array();
    Json values = Json::array();
    for (const EnumValue& value : type.values) {
      Json& member = members.append(Json::object());
      member.add("name", value.name);
      add_features(member, value.features);
      values.append(value.name);
    }
    entity.add("members", std::move(members));
    entity.add("values", std::move(values));
    all_.append(std::move(entity));
  }

  void describe_object(const Type& type) {
    Json entity = make(name(type), "object", type.features);
    Json members = Json::array();
    for (const Member& member : type.members) {
      Json& described = members.append(Json::object());
      described.add("name", member.name);
      described.add("type", name(*member.type));
      if (member.optional) described.add("default", nullptr);
      add_features(described, member.features);
    }
    entity.add("members", std::move(members));
    if (type.kind == Kind::kUnion) {
      entity.add("tag", type.tag);
      entity.add("variants", variants(type));
    }
    all_.append(std::move(entity));
  }

  Json variants(const Type& type) {
    Json list = Json::array();
    for (const EnumValue& value : type.member(type.tag)->type->values) {
      const Type* more = &schema_.empty_object();
      for (const Variant& variant : type.variants) {
        if (variant.value == value.name) more = variant.type;
      }
      Json& described = list.append(Json::object());
      described.add("case", value.name);
      described.add("type", name(*more));
    }
    return list;
  }

  const Schema& schema_;
  std::map<const Type*, std::string> names_;
  std::vector<const Type*> wanted_;
  unsigned numbers_ = 0;
  Json all_ = Json::array();
};

}  // namespace

Json introspect(const Schema& schema) { return Introspection(schema).run(); }

}  // namespace platter::monitor
