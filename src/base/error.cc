#include "platter/error.h"

#include <cstring>
#include <utility>

#include "base/assert.h"

namespace platter {
namespace {

std::string errno_text(int code) {
  char buffer[128];
  return strerror_r(code, buffer, sizeof buffer);
}

}  // namespace

Error::Error(int code, std::string message)
    : rep_(std::make_unique<Rep>(Rep{code, std::move(message), {}})) {
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
  rep_->message.insert(0, ": ").insert(0, context);
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
