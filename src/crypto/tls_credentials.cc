#include "crypto/tls_credentials.h"

#include <fmt/format.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <type_traits>
#include <utility>

#include "base/absolute_path.h"
#include "base/assert.h"
#include "base/try.h"
#include "crypto/tls_certificates.h"
#include "crypto/tls_files.h"

namespace platter::crypto {
namespace {

using base::SecretBytes;
using Kind = TlsOptions::Kind;

template <auto kFree>
struct Freed {
  template <typename T>
  void operator()(T* object) const {
    kFree(object);
  }
};
template <typename Pointer, auto kFree>
using Owned = std::unique_ptr<std::remove_pointer_t<Pointer>, Freed<kFree>>;

using Certificates = Owned<gnutls_certificate_credentials_t, gnutls_certificate_free_credentials>;
using ServerKeys = Owned<gnutls_psk_server_credentials_t, gnutls_psk_free_server_credentials>;
using ClientKeys = Owned<gnutls_psk_client_credentials_t, gnutls_psk_free_client_credentials>;
using AnonymousServer =
    Owned<gnutls_anon_server_credentials_t, gnutls_anon_free_server_credentials>;
using AnonymousClient =
    Owned<gnutls_anon_client_credentials_t, gnutls_anon_free_client_credentials>;
using DhParameters = Owned<gnutls_dh_params_t, gnutls_dh_params_deinit>;
using Priority = Owned<gnutls_priority_t, gnutls_priority_deinit>;

template <typename Object, typename Make>
Object made_by(Make make) {
  typename Object::pointer object = nullptr;
  if (make(&object) < 0) throw std::bad_alloc();
  return Object(object);
}

gnutls_datum_t datum_of(const SecretBytes& bytes) {
  return {const_cast<uint8_t*>(bytes.data()), static_cast<unsigned>(bytes.size())};
}

// How weak a group a client may be given that names none (RFC 7919 has them named).
constexpr gnutls_sec_param_t kGroupStrength = GNUTLS_SEC_PARAM_MEDIUM;
constexpr std::string_view kDefaultPriority = "NORMAL:-VERS-TLS1.0:-VERS-TLS1.1";
constexpr std::string_view kDefaultUser = "qemu";

}  // namespace

struct TlsCredentials::Loaded {
  Kind kind = Kind::kCertificates;
  bool server = false;
  bool verify_peer = true;
  Priority priority;
  DhParameters dh_parameters;  // outlive what uses them
  Certificates certificates;
  ServerKeys server_keys;
  ClientKeys client_keys;
  AnonymousServer anonymous_server;
  AnonymousClient anonymous_client;

  Result<void> load_priority(const TlsOptions& options);
  Result<void> load_dh_parameters(const TlsOptions& options);
  Result<void> load_certificates(const TlsOptions& options);
  Result<void> load_own_certificate(const TlsOptions& options, const std::string& path,
                                    const SecretBytes& certificate);
  Result<void> load_server_keys(const TlsOptions& options);
  Result<void> load_client_key(const TlsOptions& options);
  Result<void> load_anonymous(const TlsOptions& options);
};

Result<void> TlsCredentials::Loaded::load_priority(const TlsOptions& options) {
  std::string text(options.priority.empty() ? kDefaultPriority : options.priority);
  if (kind == Kind::kAnonymous) text += ":+ANON-ECDH:+ANON-DH";
  if (kind == Kind::kPreSharedKeys) text += ":+ECDHE-PSK:+DHE-PSK:+PSK";
  gnutls_priority_t made = nullptr;
  const char* wrong = nullptr;
  const int code = gnutls_priority_init(&made, text.c_str(), &wrong);
  if (code < 0) {
    return fail(EINVAL, fmt::format("Unable to set TLS priority '{}': {}", options.priority,
                                    gnutls_strerror(code)));
  }
  priority.reset(made);
  return {};
}

Result<void> TlsCredentials::Loaded::load_dh_parameters(const TlsOptions& options) {
  if (!server || options.directory.empty()) return {};
  const std::string path = options.directory + "/dh-params.pem";
  PLATTER_ASSIGN(const auto text, read_tls_file_if_any(path, "Unable to load DH parameters from"));
  if (!text) return {};
  dh_parameters = made_by<DhParameters>(gnutls_dh_params_init);
  const gnutls_datum_t datum = datum_of(*text);
  const int code = gnutls_dh_params_import_pkcs3(dh_parameters.get(), &datum, GNUTLS_X509_FMT_PEM);
  if (code == 0) return {};
  return fail(EINVAL,
              fmt::format("Unable to load DH parameters from {}: {}", path, gnutls_strerror(code)));
}

Result<void> TlsCredentials::Loaded::load_certificates(const TlsOptions& options) {
  const std::string& directory = options.directory;
  const std::string ca_path = directory + "/ca-cert.pem";
  const std::string own_path = directory + (server ? "/server-cert.pem" : "/client-cert.pem");
  const std::string key_path = directory + (server ? "/server-key.pem" : "/client-key.pem");
  PLATTER_TRY(check_readable(ca_path));
  if (server) {
    PLATTER_TRY(check_readable(own_path));
    PLATTER_TRY(check_readable(key_path));
  }
  PLATTER_ASSIGN(const SecretBytes ca, read_tls_file(ca_path, "Cannot load CA certificates"));
  PLATTER_ASSIGN(const auto own, read_tls_file_if_any(own_path, "Cannot load certificate"));
  if (options.sanity_check) {
    CertificateFile ours;
    if (own) ours = {.path = own_path, .text = own->span()};
    PLATTER_TRY(check_certificates({.path = ca_path, .text = ca.span()}, ours, server));
  }

  certificates = made_by<Certificates>(gnutls_certificate_allocate_credentials);
  const gnutls_datum_t ca_datum = datum_of(ca);
  if (gnutls_certificate_set_x509_trust_mem(certificates.get(), &ca_datum, GNUTLS_X509_FMT_PEM) <=
      0)
    return fail(EINVAL, fmt::format("Unable to import CA certificate list {}", ca_path));
  if (own) PLATTER_TRY(load_own_certificate(options, own_path, *own));
  if (!server) return {};

  const std::string crl_path = directory + "/ca-crl.pem";
  PLATTER_ASSIGN(const auto crl, read_tls_file_if_any(crl_path, "Cannot load CRL"));
  if (crl) {
    const gnutls_datum_t datum = datum_of(*crl);
    const int code =
        gnutls_certificate_set_x509_crl_mem(certificates.get(), &datum, GNUTLS_X509_FMT_PEM);
    if (code < 0)
      return fail(EINVAL, fmt::format("Cannot load CRL '{}': {}", crl_path, gnutls_strerror(code)));
  }
  if (dh_parameters) {
    gnutls_certificate_set_dh_params(certificates.get(), dh_parameters.get());
  } else {
    gnutls_certificate_set_known_dh_params(certificates.get(), kGroupStrength);
  }
  return {};
}

// A client whose key is missing has no certificate.
Result<void> TlsCredentials::Loaded::load_own_certificate(const TlsOptions& options,
                                                          const std::string& path,
                                                          const SecretBytes& certificate) {
  const std::string key_path = options.directory + (server ? "/server-key.pem" : "/client-key.pem");
  PLATTER_ASSIGN(const auto key, read_tls_file_if_any(key_path, "Cannot load key"));
  if (!key) return {};
  SecretBytes password;  // with the end that GnuTLS looks for
  if (options.key_password) {
    password = SecretBytes(options.key_password->size() + 1);
    std::ranges::copy(options.key_password->span(), password.data());
  }
  const gnutls_datum_t certificate_datum = datum_of(certificate);
  const gnutls_datum_t key_datum = datum_of(*key);
  // GnuTLS 3.7 loses memory to a list here that it cannot parse.
  int code = parse_certificates(certificate.span());
  if (code >= 0) {
    code = gnutls_certificate_set_x509_key_mem2(
        certificates.get(), &certificate_datum, &key_datum, GNUTLS_X509_FMT_PEM,
        options.key_password ? reinterpret_cast<const char*>(password.data()) : nullptr, 0);
  }
  if (code >= 0) return {};
  return fail(EINVAL, fmt::format("Cannot load certificate '{}' & key '{}': {}", path, key_path,
                                  gnutls_strerror(code)));
}

// GnuTLS looks into the file at each handshake: users come and go without a restart.
Result<void> TlsCredentials::Loaded::load_server_keys(const TlsOptions& options) {
  const std::string path = options.directory + "/keys.psk";
  PLATTER_TRY(check_readable(path));
  PLATTER_TRY(read_tls_file(path, "Cannot read PSK file"));
  PLATTER_ASSIGN(const std::string absolute, base::absolute_path(path));
  server_keys = made_by<ServerKeys>(gnutls_psk_allocate_server_credentials);
  const int set = gnutls_psk_set_server_credentials_file(server_keys.get(), absolute.c_str());
  if (set < 0)
    return fail(EINVAL, fmt::format("Cannot read PSK file '{}': {}", path, gnutls_strerror(set)));
  if (dh_parameters) {
    gnutls_psk_set_server_dh_params(server_keys.get(), dh_parameters.get());
  } else {
    gnutls_psk_set_server_known_dh_params(server_keys.get(), kGroupStrength);
  }
  return {};
}

Result<void> TlsCredentials::Loaded::load_client_key(const TlsOptions& options) {
  const std::string path = options.directory + "/keys.psk";
  PLATTER_TRY(check_readable(path));
  PLATTER_ASSIGN(const SecretBytes text, read_tls_file(path, "Cannot read PSK file"));
  const std::string user(options.username.empty() ? kDefaultUser : options.username);
  const auto key = find_pre_shared_key(text.view(), user);
  if (!key) return fail(ENOENT, fmt::format("Username {} not found in PSK file {}", user, path));
  client_keys = made_by<ClientKeys>(gnutls_psk_allocate_client_credentials);
  const gnutls_datum_t datum = datum_of(*key);
  const int code = gnutls_psk_set_client_credentials(client_keys.get(), user.c_str(), &datum,
                                                     GNUTLS_PSK_KEY_HEX);
  if (code >= 0) return {};
  return fail(EINVAL, fmt::format("Cannot set PSK client credentials: {}", gnutls_strerror(code)));
}

Result<void> TlsCredentials::Loaded::load_anonymous(const TlsOptions&) {
  if (!server) {
    anonymous_client = made_by<AnonymousClient>(gnutls_anon_allocate_client_credentials);
    return {};
  }
  anonymous_server = made_by<AnonymousServer>(gnutls_anon_allocate_server_credentials);
  if (dh_parameters) {
    gnutls_anon_set_server_dh_params(anonymous_server.get(), dh_parameters.get());
  } else {
    gnutls_anon_set_server_known_dh_params(anonymous_server.get(), kGroupStrength);
  }
  return {};
}

TlsCredentials::TlsCredentials(std::unique_ptr<Loaded> loaded) : loaded_(std::move(loaded)) {}
TlsCredentials::~TlsCredentials() = default;

Result<std::shared_ptr<const TlsCredentials>> TlsCredentials::load(const TlsOptions& options) {
  const bool needs_directory = options.kind != Kind::kAnonymous;
  if (needs_directory && options.directory.empty())
    return fail(EINVAL, "Missing 'dir' property value");
  if (options.kind == Kind::kPreSharedKeys && options.server && !options.username.empty())
    return fail(EINVAL, "username should not be set when endpoint=server");
  auto loaded = std::make_unique<Loaded>();
  loaded->kind = options.kind;
  loaded->server = options.server;
  loaded->verify_peer = options.verify_peer;
  PLATTER_TRY(loaded->load_priority(options));
  PLATTER_TRY(loaded->load_dh_parameters(options));
  if (options.kind == Kind::kCertificates) PLATTER_TRY(loaded->load_certificates(options));
  if (options.kind == Kind::kAnonymous) PLATTER_TRY(loaded->load_anonymous(options));
  if (options.kind == Kind::kPreSharedKeys) {
    PLATTER_TRY(options.server ? loaded->load_server_keys(options)
                               : loaded->load_client_key(options));
  }
  return std::shared_ptr<const TlsCredentials>(new TlsCredentials(std::move(loaded)));
}

TlsOptions::Kind TlsCredentials::kind() const { return loaded_->kind; }
bool TlsCredentials::is_server() const { return loaded_->server; }
bool TlsCredentials::verifies_peer() const {
  return loaded_->kind == Kind::kCertificates && loaded_->verify_peer;
}

void TlsCredentials::apply_to(gnutls_session_int* session) const {
  const Loaded& its = *loaded_;
  int code = gnutls_priority_set(session, its.priority.get());
  auto use = [&](gnutls_credentials_type_t type, void* credentials) {
    if (credentials != nullptr && code == 0)
      code = gnutls_credentials_set(session, type, credentials);
  };
  use(GNUTLS_CRD_CERTIFICATE, its.certificates.get());
  use(GNUTLS_CRD_PSK, its.server_keys.get());
  use(GNUTLS_CRD_PSK, its.client_keys.get());
  use(GNUTLS_CRD_ANON, its.anonymous_server.get());
  use(GNUTLS_CRD_ANON, its.anonymous_client.get());
  if (code < 0) throw std::bad_alloc();
  if (its.kind != Kind::kCertificates) return;
  if (its.server) {
    gnutls_certificate_server_set_request(
        session, its.verify_peer ? GNUTLS_CERT_REQUIRE : GNUTLS_CERT_IGNORE);
  }
  if (its.verify_peer) gnutls_session_set_verify_cert(session, nullptr, 0);
}

}  // namespace platter::crypto
