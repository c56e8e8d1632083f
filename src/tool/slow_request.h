// --slow MS: how long a request takes that is called slow.
#pragma once

#include <string_view>

#include "io/reactor.h"
#include "platter/error.h"

namespace platter::tool {

Result<io::Nanoseconds> parse_slow_request(std::string_view milliseconds);

}  // namespace platter::tool
