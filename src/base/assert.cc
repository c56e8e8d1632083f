#include "base/assert.h"

#include <cstdio>
#include <cstdlib>

namespace platter::base {

void assert_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "platter: internal error: %s:%d: '%s' does not hold\n", file, line,
               condition);
  std::abort();
}

}  // namespace platter::base
