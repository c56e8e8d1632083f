#include "monitor/tls_objects.h"

#include <fmt/format.h>

#include <cerrno>

#include "base/try.h"
#include "monitor/arguments.h"
#include "monitor/objects.h"

namespace platter::monitor {

using crypto::TlsCredentials;
using crypto::TlsOptions;

Result<std::shared_ptr<const TlsCredentials>> load_tls_credentials(
    std::string_view kind, const base::Json& values, const block::SecretSource& secrets) {
  const Arguments given(values);
  TlsOptions options{.kind = kind == "tls-creds-anon"  ? TlsOptions::Kind::kAnonymous
                             : kind == "tls-creds-psk" ? TlsOptions::Kind::kPreSharedKeys
                                                       : TlsOptions::Kind::kCertificates,
                     .directory = given.text("dir"),
                     .server = given.text("endpoint") == "server",
                     .verify_peer = given.flag("verify-peer"),
                     .sanity_check = given.flag("sanity-check", true),
                     .priority = given.text("priority"),
                     .username = given.text_or_empty("username")};
  if (const std::string id = given.text_or_empty("passwordid"); !id.empty()) {
    PLATTER_ASSIGN(options.key_password, block::find_passphrase(&secrets, id));
  }
  return TlsCredentials::load(options);
}

Result<std::shared_ptr<const TlsCredentials>> tls_credentials(const Objects& objects,
                                                              std::string_view id) {
  if (!objects.properties(id))
    return fail(ENOENT, fmt::format("No TLS credentials with id '{}'", id));
  auto credentials = objects.tls_credentials(id);
  if (credentials == nullptr)
    return fail(EINVAL, fmt::format("Object with id '{}' is not TLS credentials", id));
  if (!credentials->is_server())
    return fail(EINVAL, "Expected TLS credentials for a server endpoint");
  return credentials;
}

}  // namespace platter::monitor
