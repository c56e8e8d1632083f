// Options: what a user says about a node, an image to create or an amendment, and the tables that
// give those words a type.
//
// Options holds flat dotted keys ("file.filename", "cache.direct") in the order they were given.
// It is made from key=value text, from a JSON object (flattened), or by code. Values that came as
// text stay text until a schema says what they are.
//
// An OptionSchema is a table declared once by a driver. Parsing, rejection of unknown keys,
// `-o help`, manual pages and completion all read it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/json.h"
#include "platter/error.h"

namespace platter::base {

// nullptr_t is an explicit JSON null ("backing": null).
using OptionValue = std::variant<std::nullptr_t, bool, int64_t, uint64_t, double, std::string>;

class Options {
 public:
  using Entry = std::pair<std::string, OptionValue>;

  // "a=b,c.d=e": a comma inside a value is doubled; a bare word is `on` ("noword": `off`), unless
  // it comes first and `implied_key` is not empty (then it is that key's value). A repeated key:
  // the last one wins.
  static Result<Options> from_key_values(std::string_view text, std::string_view implied_key = {});
  // Nested objects and arrays flatten to dotted keys ("children.0.driver"); empty ones vanish.
  static Result<Options> from_json(const Json& object);
  // What follows "json:".
  static Result<Options> from_json_text(std::string_view text);
  // The inverse of from_json: dotted keys nest again, runs of indexes become arrays.
  Json to_json() const;

  bool empty() const { return entries_.empty(); }
  const std::vector<Entry>& entries() const { return entries_; }
  const OptionValue* find(std::string_view key) const;
  // The value as text, if there is one that is text.
  std::optional<std::string> find_string(std::string_view key) const;
  void set(std::string_view key, OptionValue value);
  bool erase(std::string_view key);
  // Adds what `other` has and this does not.
  void merge_defaults(const Options& other);
  // Takes out every key below "<prefix>." and returns them with the prefix removed.
  Options take_subtree(std::string_view prefix);
  bool has_subtree(std::string_view prefix) const;

 private:
  std::vector<Entry> entries_;
};

enum class OptionType { kString, kBool, kNumber, kSize };

struct OptionDef {
  std::string_view name;
  OptionType type;
  std::string_view help;
  // As the user would write it; empty: no default.
  std::string_view default_value = {};
  // For kString: the only values accepted, if not empty.
  std::span<const std::string_view> choices = {};
  // For kNumber and kSize.
  uint64_t min = 0;
  uint64_t max = UINT64_MAX;
  // Whether a reopen may change it.
  bool changeable = false;
};

// Values of one schema, typed and checked. Asking for a name that the schema lacks, or with
// another type, is a programming error (asserted).
class OptionSet {
 public:
  // What was given or, failing that, the schema's default.
  bool get_bool(std::string_view name) const;
  uint64_t get_number(std::string_view name) const;
  uint64_t get_size(std::string_view name) const { return get_number(name); }
  const std::string& get_string(std::string_view name) const;
  // Whether there is a value at all (given or default), and whether it was given.
  bool has(std::string_view name) const;
  bool given(std::string_view name) const;

 private:
  friend class OptionSchema;
  using Value = std::variant<bool, uint64_t, std::string>;
  struct Item {
    const OptionDef* def;
    std::optional<Value> value;
    bool given;
  };
  const Item& item(std::string_view name) const;
  std::vector<Item> items_;
};

class OptionSchema {
 public:
  // `defs` outlives the schema: it is a static table.
  constexpr explicit OptionSchema(std::span<const OptionDef> defs) : defs_(defs) {}

  std::span<const OptionDef> defs() const { return defs_; }
  const OptionDef* find(std::string_view name) const;

  // Every key must be in the table. Messages name the key: "Invalid parameter 'foo'",
  // "Parameter 'lazy_refcounts' expects 'on' or 'off'". Text becomes what the table says; values
  // that came typed (JSON) must fit it.
  Result<OptionSet> parse(const Options& options) const;
  // Takes the keys that the table knows out of `options` and leaves the others to the next schema.
  Result<OptionSet> take(Options& options) const;

  // The lines of `-o help`: "  name=<type>" padded to column 24, " - help"; sorted by name, each
  // with its newline.
  std::string help_text() const;

 private:
  std::span<const OptionDef> defs_;
};

}  // namespace platter::base
