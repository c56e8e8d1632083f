// Shorthand for handing an Error up. PLATTER_* in functions, PLATTER_CO_* in coroutines (where
// `co_return` takes the place of `return`).
//
//   PLATTER_TRY(check(header));                       // Result<void>
//   PLATTER_ASSIGN(auto size, parse_size(text));      // Result<T>: declares `size`
#pragma once

#include <utility>

#include "platter/error.h"

#define PLATTER_CONCAT_(a, b) a##b
#define PLATTER_CONCAT(a, b) PLATTER_CONCAT_(a, b)

#define PLATTER_TRY_(leave, expression)                           \
  do {                                                            \
    if (auto try_result = (expression); !try_result) [[unlikely]] \
      leave std::unexpected(std::move(try_result).error());       \
  } while (false)

#define PLATTER_ASSIGN_(leave, name, declaration, expression) \
  auto name = (expression);                                   \
  if (!name) [[unlikely]]                                     \
    leave std::unexpected(std::move(name).error());           \
  declaration = std::move(*name)

#define PLATTER_TRY(expression) PLATTER_TRY_(return, expression)
#define PLATTER_CO_TRY(expression) PLATTER_TRY_(co_return, expression)
#define PLATTER_ASSIGN(declaration, ...) \
  PLATTER_ASSIGN_(return, PLATTER_CONCAT(try_result_, __LINE__), declaration, (__VA_ARGS__))
#define PLATTER_CO_ASSIGN(declaration, ...) \
  PLATTER_ASSIGN_(co_return, PLATTER_CONCAT(try_result_, __LINE__), declaration, (__VA_ARGS__))

namespace platter {

// `return fail(EINVAL, "...")` from a function that returns Result<T>.
inline std::unexpected<Error> fail(int code, std::string message) {
  return std::unexpected(Error(code, std::move(message)));
}
inline std::unexpected<Error> fail_errno(int code) {
  return std::unexpected(Error::from_errno(code));
}

}  // namespace platter
