// TLS credentials as objects: the kinds tls-creds-anon, tls-creds-psk and tls-creds-x509.
#pragma once

#include <memory>
#include <string_view>

#include "base/json.h"
#include "block/secret_source.h"
#include "crypto/tls_credentials.h"
#include "platter/error.h"

namespace platter::monitor {

class Objects;

// Of a kind above, by the values of its properties. Blocks for the files.
Result<std::shared_ptr<const crypto::TlsCredentials>> load_tls_credentials(
    std::string_view kind, const base::Json& values, const block::SecretSource& secrets);

// An object's, for a server. ENOENT: there is no object `id`. EINVAL: it is another kind, or a
// client's. Who has them keeps them when the object goes.
Result<std::shared_ptr<const crypto::TlsCredentials>> tls_credentials(const Objects& objects,
                                                                      std::string_view id);

}  // namespace platter::monitor
