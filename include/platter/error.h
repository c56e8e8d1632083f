// Error and Result: how every fallible function in Platter reports what went wrong.
//
// An expected failure (a bad image, option, guest or peer) is a value: Result<T> is
// std::expected<T, Error>. An Error has an errno class, for callers that decide, and one line of
// text, for the person: what failed, on which object, why, in that order. Context is added on the
// way up ("Could not open 'a.qcow2': " before the reason). An optional hint is further advice that
// a tool prints on a line of its own. Control characters in messages and contexts become \xNN: they
// often quote what an image says.
//
// Thread-safety: a value type; distinct objects may be used from distinct threads.
#pragma once

#include <expected>
#include <memory>
#include <string>
#include <string_view>

namespace platter {

class [[nodiscard]] Error {
 public:
  // `code` is a positive errno value (EINVAL, EIO, ENOSPC, ...).
  Error(int code, std::string message);

  // The message is the system's text for `code`.
  static Error from_errno(int code);
  // The message is "<what>: <the system's text for code>".
  static Error from_errno(int code, std::string_view what);

  Error(const Error& other);
  Error& operator=(const Error& other);
  Error(Error&&) noexcept = default;
  Error& operator=(Error&&) noexcept = default;
  ~Error() = default;

  int code() const { return rep_->code; }
  const std::string& message() const { return rep_->message; }
  const std::string& hint() const { return rep_->hint; }

  // Puts "<context>: " before the message.
  Error& add_context(std::string_view context) &;
  Error&& with_context(std::string_view context) &&;
  Error&& with_hint(std::string hint) &&;

 private:
  struct Rep {
    int code;
    std::string message;
    std::string hint;
  };
  std::unique_ptr<Rep> rep_;
};

template <typename T>
using Result = std::expected<T, Error>;

}  // namespace platter
