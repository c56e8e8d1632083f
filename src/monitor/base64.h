// Base64, RFC 4648 section 4, as secrets and the bytes of character devices come.
#pragma once

#include <string>
#include <string_view>

#include "base/secret_bytes.h"
#include "platter/error.h"

namespace platter::monitor {

// Blanks and line ends are passed over; the padding may be missing.
Result<base::SecretBytes> decode_base64(std::string_view text);
std::string encode_base64(std::string_view bytes);

}  // namespace platter::monitor
