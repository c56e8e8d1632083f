#include "platter/error.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/assert.h"

namespace platter {
namespace {

std::string errno_text(int code) {
  char buffer[128];
  return strerror_r(code, buffer, sizeof buffer);
}

bool is_control(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }

// Names come from images, guests and peers: none of them writes to the terminal of whoever reads.
std::string one_line(std::string text) {
  if (std::ranges::none_of(text, is_control)) return text;
  std::string line;
  for (const char c : text) {
    if (is_control(c)) {
      line += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      line += c;
    }
  }
  return line;
}

}  // namespace

Error::Error(int code, std::string message)
    : rep_(std::make_unique<Rep>(Rep{code, one_line(std::move(message)), {}})) {
  PLATTER_ASSERT(code > 0);
}

Error Error::from_errno(int code) { return Error(code, errno_text(code)); }

Error Error::from_errno(int code, std::string_view what) {
  return Error(code, std::string(what) + ": " + errno_text(code));
}

Error::Error(const Error& other) : rep_(std::make_unique<Rep>(*other.rep_)) {}

Error& Error::operator=(const Error& other) {
  if (this != &other) rep_ = std::make_unique<Rep>(*other.rep_);
  return *this;
}

Error& Error::add_context(std::string_view context) & {
  rep_->message.insert(0, ": ").insert(0, one_line(std::string(context)));
  return *this;
}

Error&& Error::with_context(std::string_view context) && {
  add_context(context);
  return std::move(*this);
}

Error&& Error::with_hint(std::string hint) && {
  rep_->hint = std::move(hint);
  return std::move(*this);
}

}  // namespace platter
