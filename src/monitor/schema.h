// The schema: every command and event of the monitor, and the types of what they take and give. It
// is the one source for what a client may say (monitor/validate.h), for query-commands and for
// query-qmp-schema (monitor/introspection.h).
//
// Its text (kSchemaText) has one definition after the other; a line that begins with a blank goes
// on with the definition before, '#' begins a remark.
//
//   enum NAME VALUE...
//   struct NAME MEMBER...
//   union NAME on TAG MEMBER... | VALUE=STRUCT...   TAG, a member, decides which members come on
//   top alternate NAME TYPE...                          told apart by the kind of JSON value
//   command NAME MEMBER... [-> TYPE]                or "boxed TYPE" in place of the members
//   event NAME MEMBER...
//   refuse STRUCT MEMBER... because WORD...             what others of the kind take, and why not
//   here
//
// A MEMBER is NAME:TYPE, with '?' behind it where it may be left out. A TYPE is a name, [TYPE] for
// an array, or built in: str, bool, number, any, null, int (64 bits), int32, uint16, uint32, uint64
// and size. Definitions, members and enum values may have features: !deprecated.
#pragma once

#include <deque>
#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace platter::monitor {

extern const std::string_view kSchemaText;
// Devices, and whether they run: where the program speaks as itself.
extern const std::string_view kDeviceSchemaText;

struct Type;
using Features = std::vector<std::string_view>;

struct EnumValue {
  std::string_view name;
  Features features;
};

struct Member {
  std::string_view name;
  const Type* type = nullptr;
  bool optional = false;
  Features features;
};

struct Refusal {
  std::string_view member;
  std::string reason;
};

struct Variant {
  std::string_view value;  // of the tag
  const Type* type = nullptr;
};

struct Type {
  enum class Kind {
    kString,
    kBool,
    kNumber,
    kInteger,  // within [min, max]
    kAny,
    kNull,
    kArray,
    kEnum,
    kStruct,
    kUnion,
    kAlternate,
  };
  Kind kind = Kind::kStruct;
  std::string name;
  int64_t min = 0;
  uint64_t max = 0;
  const Type* element = nullptr;          // kArray
  std::vector<EnumValue> values;          // kEnum
  std::vector<Member> members;            // kStruct, kUnion
  std::string_view tag;                   // kUnion: one of `members`, of an enum
  std::vector<Variant> variants;          // kUnion: values without a variant add nothing
  std::vector<const Type*> alternatives;  // kAlternate
  std::vector<Refusal> refusals;          // kStruct
  Features features;

  const Member* member(std::string_view name) const;
  const EnumValue* value(std::string_view name) const;
};

struct CommandSchema {
  std::string_view name;
  const Type* arguments = nullptr;  // a struct or union
  const Type* result = nullptr;     // null: nothing
  Features features;
};

struct EventSchema {
  std::string_view name;
  const Type* data = nullptr;
  Features features;
};

// Immutable; any thread.
class Schema {
 public:
  // `texts` outlive the schema. They are our own: what is wrong in them is asserted.
  explicit Schema(std::initializer_list<std::string_view> texts = {kSchemaText});

  const std::vector<CommandSchema>& commands() const { return commands_; }
  const std::vector<EventSchema>& events() const { return events_; }
  const CommandSchema* find_command(std::string_view name) const;
  const Type* find_type(std::string_view name) const;
  const Type& empty_object() const { return *empty_; }

 private:
  friend class SchemaParser;
  std::deque<Type> types_;  // addresses stay
  std::map<std::string, Type*, std::less<>> by_name_;
  const Type* empty_ = nullptr;
  std::vector<CommandSchema> commands_;
  std::vector<EventSchema> events_;
};

}  // namespace platter::monitor
