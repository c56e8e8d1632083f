// What a command gives its client: a value, or an error of one of the classes that clients know.
#pragma once

#include <expected>
#include <string>
#include <string_view>
#include <utility>

#include "base/json.h"
#include "platter/error.h"

namespace platter::monitor {

enum class FailureClass { kGenericError, kCommandNotFound, kDeviceNotFound };

constexpr std::string_view class_name(FailureClass of) {
  switch (of) {
    case FailureClass::kCommandNotFound: return "CommandNotFound";
    case FailureClass::kDeviceNotFound: return "DeviceNotFound";
    case FailureClass::kGenericError: break;
  }
  return "GenericError";
}

struct Failure {
  FailureClass of = FailureClass::kGenericError;
  std::string description;

  Failure(FailureClass the_class, std::string text) : of(the_class), description(std::move(text)) {}
  // Without its hint, which is for who sits at a terminal.
  Failure(const Error& error) : description(error.message()) {}
};

using Reply = std::expected<base::Json, Failure>;

inline std::unexpected<Failure> refuse(std::string text) {
  return std::unexpected(Failure(FailureClass::kGenericError, std::move(text)));
}
inline std::unexpected<Failure> not_found(std::string text) {
  return std::unexpected(Failure(FailureClass::kDeviceNotFound, std::move(text)));
}

}  // namespace platter::monitor
