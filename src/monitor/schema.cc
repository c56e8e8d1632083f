#include "monitor/schema.h"

#include <algorithm>
#include <cstdint>
#include <iterator>

#include "base/assert.h"

namespace platter::monitor {
namespace {

using Words = std::vector<std::string_view>;

constexpr std::string_view kBlanks = " \t";

void split_words(std::string_view line, Words& words) {
  while (true) {
    const size_t begin = line.find_first_not_of(kBlanks);
    if (begin == line.npos) return;
    line.remove_prefix(begin);
    const std::string_view word = line.substr(0, line.find_first_of(kBlanks));
    words.push_back(word);
    line.remove_prefix(word.size());
  }
}

// The words of each definition.
std::vector<Words> split_definitions(std::string_view text) {
  std::vector<Words> definitions;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    if (line.empty() || line.front() == '#') continue;
    if (kBlanks.find(line.front()) == kBlanks.npos) definitions.emplace_back();
    PLATTER_ASSERT(!definitions.empty());
    split_words(line, definitions.back());
  }
  return definitions;
}

// "name!feature!feature": takes the features off.
Features take_features(std::string_view& word) {
  Features features;
  for (size_t mark; (mark = word.rfind('!')) != word.npos; word = word.substr(0, mark))
    features.insert(features.begin(), word.substr(mark + 1));
  return features;
}

}  // namespace

const Member* Type::member(std::string_view wanted) const {
  const auto found = std::ranges::find(members, wanted, &Member::name);
  return found == members.end() ? nullptr : &*found;
}

const EnumValue* Type::value(std::string_view wanted) const {
  const auto found = std::ranges::find(values, wanted, &EnumValue::name);
  return found == values.end() ? nullptr : &*found;
}

class SchemaParser {
 public:
  explicit SchemaParser(Schema& schema) : schema_(schema) {}

  void parse(std::initializer_list<std::string_view> texts) {
    add_builtins();
    std::vector<Words> definitions;
    for (const std::string_view text : texts)
      std::ranges::move(split_definitions(text), std::back_inserter(definitions));
    // Types are named before they are defined.
    for (const Words& words : definitions) {
      PLATTER_ASSERT(words.size() >= 2);
      if (words[0] != "command" && words[0] != "event" && words[0] != "refuse")
        named(std::string(words[1]));
    }
    for (const Words& words : definitions) define(words);
  }

 private:
  using Kind = Type::Kind;

  Type& named(std::string name) {
    Type& type = schema_.types_.emplace_back();
    type.name = name;
    const bool added = schema_.by_name_.emplace(std::move(name), &type).second;
    PLATTER_ASSERT(added);
    return type;
  }
  void add_integer(std::string name, int64_t min, uint64_t max) {
    Type& type = named(std::move(name));
    type.kind = Kind::kInteger;
    type.min = min;
    type.max = max;
  }
  void add_builtins() {
    named("str").kind = Kind::kString;
    named("bool").kind = Kind::kBool;
    named("number").kind = Kind::kNumber;
    named("any").kind = Kind::kAny;
    named("null").kind = Kind::kNull;
    add_integer("int", INT64_MIN, INT64_MAX);
    add_integer("int32", INT32_MIN, INT32_MAX);
    add_integer("uint16", 0, UINT16_MAX);
    add_integer("uint32", 0, UINT32_MAX);
    // A negative number counts down from 2^64, as it always did.
    add_integer("uint64", INT64_MIN, UINT64_MAX);
    add_integer("size", INT64_MIN, UINT64_MAX);
    schema_.empty_ = &named("nothing");
  }

  const Type* type(std::string_view name) {
    if (const auto found = schema_.by_name_.find(name); found != schema_.by_name_.end())
      return found->second;
    PLATTER_ASSERT(name.starts_with('[') && name.ends_with(']'));
    const Type* element = type(name.substr(1, name.size() - 2));
    Type& array = named(std::string(name));
    array.kind = Kind::kArray;
    array.element = element;
    return &array;
  }

  Member member(std::string_view word) {
    Member made;
    made.features = take_features(word);
    made.optional = word.ends_with('?');
    if (made.optional) word.remove_suffix(1);
    const size_t colon = word.find(':');
    PLATTER_ASSERT(colon != word.npos);
    made.name = word.substr(0, colon);
    made.type = type(word.substr(colon + 1));
    return made;
  }

  void define(const Words& words) {
    const std::string_view what = words[0];
    if (what == "command") return define_command(words);
    if (what == "event") return define_event(words);
    if (what == "refuse") return define_refusals(words);
    Type& made = *schema_.by_name_.find(words[1])->second;
    size_t i = 2;
    if (what == "union") {
      PLATTER_ASSERT(words.at(2) == "on");
      made.kind = Kind::kUnion;
      made.tag = words.at(3);
      i = 4;
    } else {
      made.kind = what == "enum"     ? Kind::kEnum
                  : what == "struct" ? Kind::kStruct
                                     : Kind::kAlternate;
    }
    bool variants = false;
    for (; i < words.size(); ++i) {
      std::string_view word = words[i];
      if (word.starts_with('!')) {
        made.features = take_features(word);
      } else if (word == "|") {
        variants = true;
      } else if (variants) {
        const size_t equals = word.find('=');
        PLATTER_ASSERT(equals != word.npos);
        made.variants.push_back({word.substr(0, equals), type(word.substr(equals + 1))});
      } else if (made.kind == Kind::kEnum) {
        Features features = take_features(word);
        made.values.push_back({word, std::move(features)});
      } else if (made.kind == Kind::kAlternate) {
        made.alternatives.push_back(type(word));
      } else {
        made.members.push_back(member(word));
      }
    }
  }

  void define_refusals(const Words& words) {
    const auto because = std::ranges::find(words, "because");
    PLATTER_ASSERT(because != words.end());
    std::string reason;
    for (auto word = because + 1; word != words.end(); ++word)
      reason += (reason.empty() ? "" : " ") + std::string(*word);
    Type& made = *schema_.by_name_.find(words[1])->second;
    for (auto word = words.begin() + 2; word != because; ++word)
      made.refusals.push_back({*word, reason});
  }

  // A struct that has no name of its own.
  Type& arguments_of(std::string_view name) {
    Type& made = named(std::string(name) + " arguments");
    made.kind = Kind::kStruct;
    return made;
  }

  void define_command(const Words& words) {
    CommandSchema command;
    command.name = words[1];
    command.arguments = schema_.empty_;
    Type* own = nullptr;
    for (size_t i = 2; i < words.size(); ++i) {
      std::string_view word = words[i];
      if (word == "boxed") {
        command.arguments = type(words.at(++i));
      } else if (word == "->") {
        command.result = type(words.at(++i));
      } else if (word.starts_with('!')) {
        command.features = take_features(word);
      } else {
        if (own == nullptr) command.arguments = own = &arguments_of(command.name);
        own->members.push_back(member(word));
      }
    }
    schema_.commands_.push_back(std::move(command));
  }

  void define_event(const Words& words) {
    EventSchema event;
    event.name = words[1];
    event.data = schema_.empty_;
    if (words.size() > 2) {
      Type& own = arguments_of(event.name);
      for (size_t i = 2; i < words.size(); ++i) own.members.push_back(member(words[i]));
      event.data = &own;
    }
    schema_.events_.push_back(std::move(event));
  }

  Schema& schema_;
};

Schema::Schema(std::initializer_list<std::string_view> texts) { SchemaParser(*this).parse(texts); }

const CommandSchema* Schema::find_command(std::string_view name) const {
  const auto found = std::ranges::find(commands_, name, &CommandSchema::name);
  return found == commands_.end() ? nullptr : &*found;
}

const Type* Schema::find_type(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : found->second;
}

}  // namespace platter::monitor
