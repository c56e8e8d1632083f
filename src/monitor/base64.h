// Base64, RFC 4648 section 4, as secrets come in.
#pragma once

#include <string_view>

#include "base/secret_bytes.h"
#include "platter/error.h"

namespace platter::monitor {

// Blanks and line ends are passed over; the padding may be missing.
Result<base::SecretBytes> decode_base64(std::string_view text);

}  // namespace platter::monitor
