// SecretSource: where drivers get passphrases and keys from, by the ids that options name.
#pragma once

#include <string_view>

#include "base/secret_bytes.h"
#include "platter/error.h"

namespace platter::block {

class SecretSource {
 public:
  virtual ~SecretSource() = default;
  // A copy of the secret's bytes. ENOENT: "No secret with id 'x'". Any thread.
  virtual Result<base::SecretBytes> secret(std::string_view id) const = 0;
};

// Of `source`, which may be null: there are no secrets then. A passphrase is UTF-8 text.
Result<base::SecretBytes> find_passphrase(const SecretSource* source, std::string_view id);
Error no_such_secret(std::string_view id);

}  // namespace platter::block
