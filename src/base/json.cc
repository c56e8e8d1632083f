#include "base/json.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include <cerrno>
#include <cmath>
#include <optional>

#include "base/assert.h"
#include "base/try.h"

namespace platter::base {
namespace {

// ---- Writing

constexpr uint32_t kReplacement = 0xfffd;

// Takes one code point off `rest`; a malformed sequence is one replacement character.
uint32_t take_code_point(std::string_view& rest) {
  auto byte = [&](size_t i) { return static_cast<unsigned char>(rest[i]); };
  unsigned char lead = byte(0);
  size_t length = lead < 0x80   ? 1
                  : lead < 0xc0 ? 0
                  : lead < 0xe0 ? 2
                  : lead < 0xf0 ? 3
                  : lead < 0xf8 ? 4
                                : 0;
  if (length <= 1) {
    rest.remove_prefix(1);
    return length == 1 ? lead : kReplacement;
  }
  uint32_t code = lead & (0x7fu >> length);
  size_t taken = 1;
  while (taken < length && taken < rest.size() && (byte(taken) & 0xc0) == 0x80) {
    code = code << 6 | (byte(taken++) & 0x3f);
  }
  rest.remove_prefix(taken);
  constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  bool valid = taken == length && code >= kSmallest[length] && code <= 0x10ffff &&
               (code < 0xd800 || code > 0xdfff);
  return valid ? code : kReplacement;
}

void write_escaped(std::string& out, uint32_t code) {
  auto to = std::back_inserter(out);
  if (code >= 0x10000) {
    code -= 0x10000;
    fmt::format_to(to, "\\u{:04X}\\u{:04X}", 0xd800 | code >> 10, 0xdc00 | (code & 0x3ff));
  } else {
    fmt::format_to(to, "\\u{:04X}", code);
  }
}

void write_string(std::string& out, std::string_view text) {
  out += '"';
  while (!text.empty()) {
    uint32_t code = take_code_point(text);
    switch (code) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\b': out += "\\b"; break;
      case '\f': out += "\\f"; break;
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      default:
        if (code >= 0x20 && code < 0x7f) {
          out += static_cast<char>(code);
        } else {
          write_escaped(out, code);
        }
    }
  }
  out += '"';
}

// Layout of one document: one line, or a member a line.
class Writer {
 public:
  explicit Writer(std::optional<unsigned> indent) : indent_(indent) {}

  void write(const Json& json) {
    std::visit([this](const auto& value) { write_value(value); }, json.value());
  }
  std::string take() { return std::move(out_); }

 private:
  void write_value(std::nullptr_t) { out_ += "null"; }
  void write_value(bool value) { out_ += value ? "true" : "false"; }
  void write_value(int64_t value) { fmt::format_to(std::back_inserter(out_), "{}", value); }
  void write_value(uint64_t value) { fmt::format_to(std::back_inserter(out_), "{}", value); }
  // "-0" would be read as the integer, which has no sign.
  void write_value(double value) {
    const bool negative_zero = value == 0 && std::signbit(value);
    fmt::format_to(std::back_inserter(out_), "{:.17g}{}", value, negative_zero ? ".0" : "");
  }
  void write_value(const std::string& value) { write_string(out_, value); }

  void write_value(const Json::Array& array) {
    open('[');
    for (const Json& item : array) {
      next(&item == array.data());
      write(item);
    }
    close(']', array.empty());
  }

  void write_value(const Json::Object& object) {
    open('{');
    for (const auto& member : object) {
      next(&member == object.data());
      write_string(out_, member.first);
      out_ += ": ";
      write(member.second);
    }
    close('}', object.empty());
  }

  void open(char bracket) {
    out_ += bracket;
    ++depth_;
  }
  void next(bool first) {
    if (!first) out_ += indent_ ? "," : ", ";
    new_line();
  }
  void close(char bracket, bool empty) {
    --depth_;
    if (!empty) new_line();
    out_ += bracket;
  }
  void new_line() {
    if (!indent_) return;
    out_ += '\n';
    out_.append(size_t{depth_} * *indent_, ' ');
  }

  std::optional<unsigned> indent_;
  unsigned depth_ = 0;
  std::string out_;
};

// ---- Reading

using SaxBase = nlohmann::json_sax<nlohmann::json>;

// Builds the value from the parser's events; what is open stands in stack_.
class Builder final : public SaxBase {
 public:
  bool null() override { return put(Json()); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(int64_t value) override { return put(value); }
  bool number_unsigned(uint64_t value) override { return put(value); }
  bool number_float(double value, const std::string&) override { return put(value); }
  bool string(std::string& value) override { return put(std::move(value)); }
  bool binary(nlohmann::json::binary_t&) override { return false; }
  bool start_object(size_t) override { return open(Json::object()); }
  bool end_object() override { return close(); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool end_array() override { return close(); }

  bool key(std::string& key) override {
    Frame& frame = stack_.back();
    if (frame.value.find(key) != nullptr) {
      return refuse(fmt::format("JSON parse error, duplicate key '{}'", key));
    }
    frame.key = std::move(key);
    return true;
  }

  bool parse_error(size_t position, const std::string& last_token,
                   const nlohmann::json::exception&) override {
    // The token is quoted as it stands in the text, control characters written <U+000A>.
    return refuse(fmt::format("JSON parse error at byte {}, near '{}'", position, last_token));
  }

  Result<Json> take() {
    if (error_) return std::unexpected(std::move(*error_));
    return std::move(root_);
  }

 private:
  struct Frame {
    Json value;
    std::string key;  // of an object: the member that comes next
  };

  bool open(Json value) {
    if (stack_.size() == Json::kMaxDepth) {
      return refuse(fmt::format("JSON is nested more than {} levels deep", Json::kMaxDepth));
    }
    stack_.push_back({std::move(value), {}});
    return true;
  }
  bool close() {
    Json value = std::move(stack_.back().value);
    stack_.pop_back();
    return put(std::move(value));
  }
  bool put(Json value) {
    if (stack_.empty()) {
      root_ = std::move(value);
    } else if (Frame& frame = stack_.back(); frame.value.is_object()) {
      frame.value.add(std::move(frame.key), std::move(value));
    } else {
      frame.value.append(std::move(value));
    }
    return true;
  }
  bool refuse(std::string message) {
    error_ = Error(EINVAL, std::move(message));
    return false;
  }

  std::vector<Frame> stack_;
  Json root_;
  std::optional<Error> error_;
};

// Strings in single quotes are what shells make people write; QEMU reads them too. The same text
// with double quotes.
std::string with_double_quotes(std::string_view text) {
  std::string out;
  char quote = '\0';
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (quote == '\0') {
      if (c == '"' || c == '\'') quote = c;
      out += c == '\'' ? '"' : c;
    } else if (c == '\\' && i + 1 < text.size()) {
      c = text[++i];
      if (c != '\'') out += '\\';
      out += c;
    } else if (c == quote) {
      quote = '\0';
      out += '"';
    } else {
      if (c == '"') out += '\\';
      out += c;
    }
  }
  return out;
}

}  // namespace

const Json* Json::find(std::string_view key) const {
  const auto* object = get_if<Object>();
  PLATTER_ASSERT(object != nullptr);
  for (const Member& member : *object) {
    if (member.first == key) return &member.second;
  }
  return nullptr;
}

Json& Json::add(std::string key, Json value) {
  auto* object = std::get_if<Object>(&value_);
  PLATTER_ASSERT(object != nullptr);
  return object->emplace_back(std::move(key), std::move(value)).second;
}

Json& Json::append(Json value) {
  auto* array = std::get_if<Array>(&value_);
  PLATTER_ASSERT(array != nullptr);
  return array->emplace_back(std::move(value));
}

std::string Json::dump() const {
  Writer writer(std::nullopt);
  writer.write(*this);
  return writer.take();
}

std::string Json::dump_pretty(unsigned indent) const {
  Writer writer(indent);
  writer.write(*this);
  return writer.take();
}

Result<Json> Json::parse(std::string_view text) {
  std::string rewritten;
  if (text.find('\'') != std::string_view::npos) text = rewritten = with_double_quotes(text);
  Builder builder;
  nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
}

}  // namespace platter::base
