// The files of TLS credentials.
#pragma once

#include <optional>
#include <string>

#include "base/secret_bytes.h"
#include "platter/error.h"

namespace platter::crypto {

inline constexpr size_t kMaxTlsFileBytes = size_t{1} << 20;

// "Unable to access credentials PATH: ...".
Result<void> check_readable(const std::string& path);
// A regular file of at most kMaxTlsFileBytes. `what` begins the error: "Cannot load CRL".
Result<base::SecretBytes> read_tls_file(const std::string& path, std::string_view what);
// nullopt: there is none.
Result<std::optional<base::SecretBytes>> read_tls_file_if_any(const std::string& path,
                                                              std::string_view what);

// The hexadecimal key of `user` in the text of a keys.psk.
std::optional<base::SecretBytes> find_pre_shared_key(std::string_view text, std::string_view user);

}  // namespace platter::crypto
