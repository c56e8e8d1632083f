#include "monitor/secret_object.h"

#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "base/try.h"
#include "crypto/block_cipher.h"
#include "monitor/base64.h"

namespace platter::monitor {
namespace {

constexpr size_t kMaxSecretFileBytes = size_t{1} << 20;

Result<base::SecretBytes> read_secret_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  file.rdbuf()->pubsetbuf(nullptr, 0);
  if (!file) {
    const int code = errno;
    return fail(code, fmt::format("Unable to read {}: Failed to open file “{}”: {}", path, path,
                                  Error::from_errno(code).message()));
  }
  base::SecretBytes buffer(kMaxSecretFileBytes + 1);
  file.read(reinterpret_cast<char*>(buffer.data()), static_cast<std::streamsize>(buffer.size()));
  if (file.bad()) {
    const int code = errno;
    return fail(code, fmt::format("Unable to read {}: Error reading file “{}”: {}", path, path,
                                  Error::from_errno(code).message()));
  }
  const auto size = static_cast<size_t>(file.gcount());
  if (size > kMaxSecretFileBytes) {
    return fail(EFBIG, fmt::format("Unable to read {}: a secret has at most {} bytes", path,
                                   kMaxSecretFileBytes));
  }
  return base::SecretBytes::copy_of(buffer.span().first(size));
}

// keyctl(2), which the C library lacks.
constexpr int kReadKey = 11;

Result<base::SecretBytes> read_key(int32_t serial) {
  if (serial == 0) return fail(EINVAL, "'serial' should not be equal to 0");
  auto failed = [serial] {
    const auto number = static_cast<uint32_t>(serial);
    return std::unexpected(
        Error::from_errno(errno, fmt::format("Unable to read serial key {:08x}", number)));
  };
  const long size = syscall(SYS_keyctl, kReadKey, serial, nullptr, 0);
  if (size < 0) return failed();
  base::SecretBytes bytes(static_cast<size_t>(size));
  const long got = syscall(SYS_keyctl, kReadKey, serial, bytes.data(), bytes.size());
  if (got < 0) return failed();
  return base::SecretBytes::copy_of(
      bytes.span().first(std::min(static_cast<size_t>(got), bytes.size())));
}

// A secret that another one encrypts: AES-256 in CBC mode, padded as PKCS #7 says.
Result<base::SecretBytes> decrypt_secret(const base::SecretBytes& key,
                                         const std::optional<std::string>& iv_text,
                                         base::SecretBytes secret) {
  constexpr auto kAlgorithm = crypto::CipherAlgorithm::kAes256;
  const size_t block = crypto::block_bytes(kAlgorithm);
  if (key.size() != crypto::cipher_key_bytes(kAlgorithm)) {
    return fail(EINVAL, fmt::format("Key should be {} bytes in length",
                                    crypto::cipher_key_bytes(kAlgorithm)));
  }
  if (!iv_text) return fail(EINVAL, "IV is required to decrypt secret");
  PLATTER_ASSIGN(const auto iv, decode_base64(*iv_text));
  if (iv.size() != block) {
    return fail(EINVAL, fmt::format("IV should be {} bytes in length not {}", block, iv.size()));
  }
  if (secret.empty() || secret.size() % block != 0) {
    return fail(EINVAL,
                fmt::format("Length {} must be a multiple of block size {}", secret.size(), block));
  }
  PLATTER_ASSIGN(const auto cipher,
                 crypto::make_block_cipher(kAlgorithm, crypto::CipherMode::kCbc, key.span()));
  cipher->decrypt(iv.data(), secret.data(), secret.data(), secret.size());
  const size_t padding = secret.span().back();
  if (padding == 0 || padding > block || padding > secret.size()) {
    return fail(
        EINVAL,
        fmt::format("Incorrect number of padding bytes ({}) found on decrypted data", padding));
  }
  return base::SecretBytes::copy_of(secret.span().first(secret.size() - padding));
}

}  // namespace

Result<void> take_secret(Properties& properties, bool in_keyring, SecretProperties& secret) {
  if (in_keyring) {
    PLATTER_ASSIGN(const auto serial, properties.take_integer("serial"));
    if (!serial) return fail(EINVAL, "Parameter 'serial' is missing");
    if (*serial < INT32_MIN || *serial > INT32_MAX)
      return fail(EINVAL, "Parameter 'serial' expects int32_t");
    secret.serial = static_cast<int32_t>(*serial);
  } else {
    secret.data = properties.take("data");
    secret.file = properties.take("file");
  }
  const std::string format = properties.take("format").value_or("raw");
  if (format != "raw" && format != "base64") {
    return fail(EINVAL, fmt::format("Parameter 'format' does not accept value '{}'", format));
  }
  secret.base64 = format == "base64";
  secret.key_id = properties.take("keyid");
  secret.iv = properties.take("iv");
  return {};
}

Result<base::SecretBytes> make_secret(const block::SecretSource& others,
                                      const SecretProperties& properties) {
  if (properties.data && properties.file)
    return fail(EINVAL, "'file' and 'data' are mutually exclusive");
  if (!properties.data && !properties.file && !properties.serial)
    return fail(EINVAL, "Either 'file' or 'data' must be provided");
  base::SecretBytes bytes;
  if (properties.serial) {
    PLATTER_ASSIGN(bytes, read_key(*properties.serial));
  } else if (properties.file) {
    PLATTER_ASSIGN(bytes, read_secret_file(*properties.file));
  } else {
    bytes = base::SecretBytes::copy_of(*properties.data);
  }
  if (properties.base64) {
    PLATTER_ASSIGN(bytes, decode_base64(bytes.view()));
  }
  if (!properties.key_id) return bytes;
  PLATTER_ASSIGN(const auto key, others.secret(*properties.key_id));
  return decrypt_secret(key, properties.iv, std::move(bytes));
}

std::vector<ObjectProperty> describe(const SecretProperties& secret) {
  std::vector<ObjectProperty> properties = {
      {"loaded", "bool", true},
      {"format", "QCryptoSecretFormat", secret.base64 ? "base64" : "raw"},
      {"keyid", "string", secret.key_id.value_or("")},
      {"iv", "string", secret.iv.value_or("")}};
  if (secret.serial) {
    properties.push_back({"serial", "int32_t", *secret.serial});
  } else {
    properties.push_back({"file", "string", secret.file.value_or("")});
  }
  return properties;
}

}  // namespace platter::monitor
