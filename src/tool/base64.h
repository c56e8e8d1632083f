// Base64, RFC 4648 section 4, as secrets come in.
#pragma once

#include <string>
#include <string_view>

#include "platter/error.h"

namespace platter::tool {

// Blanks and line ends are passed over; the padding may be missing.
Result<std::string> decode_base64(std::string_view text);

}  // namespace platter::tool
