#include "monitor/schema.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/options.h"
#include "block/registry.h"
#include "monitor/commands.h"
#include "monitor/definitions.h"
#include "monitor/introspection.h"
#include "monitor/validate.h"

namespace platter::monitor {
namespace {

using base::Json;

constexpr std::string_view kSmall =
    "# a remark\n"
    "enum Colour red green!deprecated\n"
    "struct Point x:int y:int?\n"
    "union Shape on colour colour:Colour name:str? |\n"
    "    red=Point\n"
    "alternate PointOrName Point str null\n"
    "command draw boxed Shape -> [str] !unstable\n"
    "command move to:PointOrName by:[Point]? small:uint16? flag:bool? -> Point\n"
    "event MOVED to:Point\n";

std::string wrong(std::string_view command, std::string_view arguments) {
  const Schema schema{kSmall};
  const auto json = Json::parse(arguments);
  EXPECT_TRUE(json.has_value()) << arguments;
  const auto checked = validate(*schema.find_command(command)->arguments, *json);
  return checked ? "" : checked.error().message();
}

TEST(Schema, Reads) {
  const Schema schema{kSmall};
  EXPECT_EQ(schema.commands().size(), 2u);
  EXPECT_EQ(schema.find_command("draw")->features, Features{"unstable"});
  EXPECT_EQ(schema.find_type("Colour")->value("green")->features, Features{"deprecated"});
  EXPECT_TRUE(schema.find_type("Point")->member("y")->optional);
  EXPECT_EQ(schema.events()[0].data->member("to")->type, schema.find_type("Point"));
  EXPECT_EQ(schema.find_command("none"), nullptr);
}

TEST(Validate, AcceptsWhatFits) {
  EXPECT_EQ(wrong("draw", R"({"colour": "red", "x": 1, "y": -2})"), "");
  EXPECT_EQ(wrong("draw", R"({"colour": "green", "name": "n"})"), "");
  EXPECT_EQ(wrong("move", R"({"to": null, "by": [{"x": 1}], "small": 65535, "flag": true})"), "");
  EXPECT_EQ(wrong("move", R"({"to": "there"})"), "");
}

TEST(Validate, SaysWhatIsWrong) {
  EXPECT_EQ(wrong("draw", "{}"), "Parameter 'colour' is missing");
  EXPECT_EQ(wrong("draw", R"({"colour": "blue"})"),
            "Parameter 'colour' does not accept value 'blue'");
  EXPECT_EQ(wrong("draw", R"({"colour": 5})"),
            "Invalid parameter type for 'colour', expected: string");
  EXPECT_EQ(wrong("draw", R"({"colour": "red"})"), "Parameter 'x' is missing");
  EXPECT_EQ(wrong("draw", R"({"colour": "green", "x": 1})"), "Parameter 'x' is unexpected");
  EXPECT_EQ(wrong("move", R"({"to": {"x": 1.5}})"),
            "Invalid parameter type for 'to.x', expected: integer");
  EXPECT_EQ(wrong("move", R"({"to": {"x": 1, "z": 2}})"), "Parameter 'to.z' is unexpected");
  EXPECT_EQ(wrong("move", R"({"to": 5})"),
            "Invalid parameter type for 'to', expected: PointOrName");
  EXPECT_EQ(wrong("move", R"({"to": null, "by": {}})"),
            "Invalid parameter type for 'by', expected: array");
  EXPECT_EQ(wrong("move", R"({"to": null, "by": [{"x": 1}, {}]})"),
            "Parameter 'by[1].x' is missing");
  EXPECT_EQ(wrong("move", R"({"to": null, "small": 65536})"), "Parameter 'small' expects uint16_t");
  EXPECT_EQ(wrong("move", R"({"to": null, "small": -1})"), "Parameter 'small' expects uint16_t");
  EXPECT_EQ(wrong("move", R"({"to": {"x": 9223372036854775808}})"),
            "Invalid parameter type for 'to.x', expected: integer");
  EXPECT_EQ(wrong("move", R"({"to": null, "flag": 1})"),
            "Invalid parameter type for 'flag', expected: boolean");
}

TEST(Introspection, HasEveryTypeOnce) {
  const Schema schema{kSmall};
  const Json all = introspect(schema);
  std::vector<std::string> names;
  for (const Json& entity : *all.get_if<Json::Array>())
    names.push_back(*entity.find("name")->get_if<std::string>());
  auto sorted = names;
  std::ranges::sort(sorted);
  EXPECT_EQ(std::ranges::adjacent_find(sorted), sorted.end());
  EXPECT_NE(std::ranges::find(names, "draw"), names.end());
  EXPECT_NE(std::ranges::find(names, "MOVED"), names.end());
  // All integers are one type.
  EXPECT_EQ(std::ranges::find(names, "uint16"), names.end());
  EXPECT_NE(all.dump().find(R"("tag": "colour", "variants": [{"case": "red")"), std::string::npos);
}

// ---- The real one

TEST(Schema, EveryCommandHasAFunctionAndTheReverse) {
  const Schema schema;
  std::vector<std::string_view> functions = {"qmp_capabilities"};  // the session's own
  for (const auto commands :
       {control_commands(), node_commands(), change_commands(), object_commands(),
        setting_commands(), chardev_commands(), graph_commands(), nbd_commands()}) {
    for (const CommandFunction& one : commands) functions.push_back(one.name);
  }
  for (const CommandSchema& command : schema.commands())
    EXPECT_EQ(std::ranges::count(functions, command.name), 1) << command.name;
  EXPECT_EQ(functions.size(), schema.commands().size());
}

const Member* find_member(const Type& type, std::string_view dotted) {
  const std::string_view first = dotted.substr(0, dotted.find('.'));
  const Member* member = type.member(first);
  for (const Variant& variant : type.variants) {
    if (member == nullptr) member = variant.type->member(first);
  }
  if (member == nullptr || first.size() == dotted.size()) return member;
  const std::string_view rest = dotted.substr(first.size() + 1);
  if (member->type->kind != Type::Kind::kAlternate) return find_member(*member->type, rest);
  for (const Type* one : member->type->alternatives) {
    if (const Member* found = find_member(*one, rest)) return found;
  }
  return nullptr;
}

// What a driver can be told and what a client may say are two tables of the same.
TEST(Schema, HasEveryOptionOfEveryDriver) {
  const Schema schema;
  const Type& options = *schema.find_type("BlockdevOptions");
  const Type& drivers = *schema.find_type("BlockdevDriver");
  const auto registry = block::DriverRegistry::builtin();
  for (const auto* type : registry.types()) {
    ASSERT_NE(drivers.value(type->name), nullptr) << type->name;
    const auto variant = std::ranges::find(options.variants, type->name, &Variant::value);
    ASSERT_NE(variant, options.variants.end()) << type->name;
    for (const base::OptionDef& def : type->runtime_options.defs()) {
      if (def.name == "x-image") continue;  // of file names alone
      EXPECT_NE(find_member(*variant->type, def.name), nullptr) << type->name << " " << def.name;
    }
  }
  EXPECT_EQ(drivers.values.size(), registry.types().size());
}

bool is_node(const Type& type) {
  return type.kind == Type::Kind::kAlternate && type.alternatives[0]->name == "BlockdevOptions";
}

TEST(Schema, OffersNothingThatADriverDoesNotKnow) {
  const Schema schema;
  const auto registry = block::DriverRegistry::builtin();
  for (const Variant& variant : schema.find_type("BlockdevOptions")->variants) {
    const auto& options = registry.find(variant.value)->runtime_options;
    for (const Member& member : variant.type->members) {
      // Lists have tables of their own.
      if (is_node(*member.type) || member.type->kind == Type::Kind::kArray) continue;
      const std::string prefix = std::string(member.name) + ".";
      const bool known = options.find(member.name) != nullptr ||
                         std::ranges::any_of(options.defs(), [&](const base::OptionDef& def) {
                           return def.name.starts_with(prefix);
                         });
      EXPECT_TRUE(known) << variant.value << " " << member.name;
    }
  }
}

TEST(Definitions, GiveWordsTheirTypes) {
  const Schema schema;
  const Type& type = *schema.find_type("BlockdevOptions");
  const auto made = parse_definition(
      type,
      "qcow2,node-name=q,read-only=on,l2-cache-size=65536,file.driver=file,file.filename=a,,b",
      "driver");
  ASSERT_TRUE(made) << made.error().message();
  EXPECT_EQ(made->dump(),
            R"({"driver": "qcow2", "node-name": "q", "read-only": true, "l2-cache-size": 65536, )"
            R"("file": {"driver": "file", "filename": "a,b"}})");
  EXPECT_EQ(parse_definition(type, "qcow2", "driver").error().message(),
            "Parameter 'file' is missing");
  EXPECT_EQ(parse_definition(type, "qcow2,file=a,read-only=maybe", "driver").error().message(),
            "Parameter 'read-only' expects 'on' or 'off'");
  EXPECT_TRUE(parse_definition(type, R"({"driver": "null-co", "size": 5})", "driver"));
  EXPECT_EQ(parse_definition(type, "null-co,zip=1", "driver").error().message(),
            "Parameter 'zip' is unexpected");
}

}  // namespace
}  // namespace platter::monitor
