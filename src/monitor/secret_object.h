// The types secret and secret_keyring: bytes that are given, read from a file or asked of the
// kernel, and may be encoded, and encrypted with another secret.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/secret_bytes.h"
#include "block/secret_source.h"
#include "monitor/object_properties.h"
#include "platter/error.h"

namespace platter::monitor {

struct SecretProperties {
  std::optional<int32_t> serial;  // of a key that the kernel keeps
  std::optional<std::string> data;
  std::optional<std::string> file;
  bool base64 = false;
  std::optional<std::string> key_id;
  std::optional<std::string> iv;

  SecretProperties() = default;
  SecretProperties(const SecretProperties&) = delete;
  SecretProperties& operator=(const SecretProperties&) = delete;
  ~SecretProperties() {
    if (data) explicit_bzero(data->data(), data->size());
  }
};

Result<void> take_secret(Properties& properties, bool in_keyring, SecretProperties& secret);
// `others`: where the one is that encrypts it.
Result<base::SecretBytes> make_secret(const block::SecretSource& others,
                                      const SecretProperties& properties);
std::vector<ObjectProperty> describe(const SecretProperties& secret);

}  // namespace platter::monitor
