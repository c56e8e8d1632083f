// PLATTER_ASSERT: our own mistakes, checked in every build. No input may ever reach one.
#pragma once

namespace platter::base {

[[noreturn]] void assert_failed(const char* condition, const char* file, int line);

}  // namespace platter::base

#define PLATTER_ASSERT(condition)                    \
  (__builtin_expect(static_cast<bool>(condition), 1) \
       ? static_cast<void>(0)                        \
       : ::platter::base::assert_failed(#condition, __FILE_NAME__, __LINE__))
