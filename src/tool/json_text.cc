#include "tool/json_text.h"

#include "fmt/format.h"

namespace platter::tool {
namespace {

std::string scalar_text(const base::Json& value) {
  if (const auto* flag = value.get_if<bool>()) return *flag ? "true" : "false";
  if (const auto* text = value.get_if<std::string>()) return *text;
  return value.dump();
}

bool is_composite(const base::Json& value) { return value.is_object() || value.is_array(); }

void print_entry(std::string& out, std::string key, const base::Json& value, unsigned depth) {
  out.append(size_t{depth} * 4, ' ');
  out += key;
  if (is_composite(value)) {
    out += ":\n";
    print_json_text(out, value, depth + 1);
  } else {
    out += ": " + scalar_text(value) + "\n";
  }
}

}  // namespace

void print_json_text(std::string& out, const base::Json& value, unsigned depth) {
  if (const auto* members = value.get_if<base::Json::Object>()) {
    for (const auto& [name, member] : *members) {
      std::string key = name;
      for (char& c : key) {
        if (c == '-') c = ' ';
      }
      print_entry(out, std::move(key), member, depth);
    }
  } else if (const auto* items = value.get_if<base::Json::Array>()) {
    for (size_t i = 0; i < items->size(); ++i) {
      print_entry(out, fmt::format("[{}]", i), (*items)[i], depth);
    }
  }
}

}  // namespace platter::tool
