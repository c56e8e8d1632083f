#include "crypto/tls_certificates.h"

#include <fmt/format.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include <array>
#include <cerrno>
#include <ctime>
#include <utility>

#include "base/try.h"

namespace platter::crypto {
namespace {

enum class Role { kAuthority, kServer, kClient };

class CertificateList {
 public:
  CertificateList() = default;
  CertificateList(CertificateList&& other) noexcept
      : all_(std::exchange(other.all_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  CertificateList& operator=(CertificateList&&) = delete;
  ~CertificateList() {
    for (gnutls_x509_crt_t certificate : all()) gnutls_x509_crt_deinit(certificate);
    gnutls_free(all_);
  }

  // Once. GnuTLS's code; 0: `text` was read.
  int parse(std::span<const uint8_t> text) {
    const gnutls_datum_t datum = {const_cast<uint8_t*>(text.data()),
                                  static_cast<unsigned>(text.size())};
    gnutls_x509_crt_t* made = nullptr;
    unsigned count = 0;
    const int code = gnutls_x509_crt_list_import2(&made, &count, &datum, GNUTLS_X509_FMT_PEM, 0);
    if (code < 0) return code;
    all_ = made;
    size_ = count;
    return 0;
  }
  std::span<gnutls_x509_crt_t> all() { return {all_, size_}; }

 private:
  gnutls_x509_crt_t* all_ = nullptr;
  unsigned size_ = 0;
};

std::string_view name_of(Role role) {
  return role == Role::kAuthority ? "CA" : role == Role::kServer ? "server" : "client";
}

Result<void> check_dates(gnutls_x509_crt_t certificate, const std::string& path, Role role) {
  const time_t now = time(nullptr);
  const time_t end = gnutls_x509_crt_get_expiration_time(certificate);
  const time_t begin = gnutls_x509_crt_get_activation_time(certificate);
  if (end < 0 || begin < 0)
    return fail(EINVAL, fmt::format("The {} certificate {} has no dates", name_of(role), path));
  if (end < now)
    return fail(EINVAL, fmt::format("The {} certificate {} has expired", name_of(role), path));
  if (begin > now)
    return fail(EINVAL,
                fmt::format("The {} certificate {} is not yet active", name_of(role), path));
  return {};
}

Result<void> check_constraints(gnutls_x509_crt_t certificate, const std::string& path, Role role) {
  const int shown = gnutls_x509_crt_get_basic_constraints(certificate, nullptr, nullptr, nullptr);
  const bool is_missing = shown == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE;
  if (shown < 0 && !is_missing) {
    return fail(EINVAL, fmt::format("Unable to query certificate {} basic constraints: {}", path,
                                    gnutls_strerror(shown)));
  }
  if (role != Role::kAuthority && shown > 0) {
    return fail(EINVAL, fmt::format("The certificate {} basic constraints show a CA, but we need "
                                    "one for a {}",
                                    path, name_of(role)));
  }
  if (role != Role::kAuthority) return {};
  if (is_missing)
    return fail(EINVAL,
                fmt::format("The certificate {} is missing basic constraints for a CA", path));
  if (shown == 0)
    return fail(EINVAL, fmt::format("The certificate {} basic constraints do not show a CA", path));
  return {};
}

// What is not critical is advice.
Result<void> check_usage(gnutls_x509_crt_t certificate, const std::string& path, Role role) {
  unsigned usage = 0, critical = 0;
  const int code = gnutls_x509_crt_get_key_usage(certificate, &usage, &critical);
  if (code == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) return {};
  if (code < 0) {
    return fail(EINVAL, fmt::format("Unable to query certificate {} key usage: {}", path,
                                    gnutls_strerror(code)));
  }
  const bool is_authority = role == Role::kAuthority;
  const unsigned needed = is_authority ? GNUTLS_KEY_KEY_CERT_SIGN : GNUTLS_KEY_DIGITAL_SIGNATURE;
  if ((usage & needed) != 0 || critical == 0) return {};
  return fail(EINVAL, fmt::format("Certificate {} usage does not permit {}", path,
                                  is_authority ? "certificate signing" : "digital signature"));
}

Result<void> check_purpose(gnutls_x509_crt_t certificate, const std::string& path, Role role) {
  const std::string_view needed =
      role == Role::kServer ? GNUTLS_KP_TLS_WWW_SERVER : GNUTLS_KP_TLS_WWW_CLIENT;
  bool is_critical = false;
  for (unsigned i = 0;; ++i) {
    std::array<char, 128> text{};  // the longest of those that mean something has 20
    size_t size = text.size();
    unsigned critical = 0;
    const int code =
        gnutls_x509_crt_get_key_purpose_oid(certificate, i, text.data(), &size, &critical);
    if (code == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) break;
    if (code < 0 && code != GNUTLS_E_SHORT_MEMORY_BUFFER) {
      return fail(EINVAL, fmt::format("Unable to query certificate {} key purpose: {}", path,
                                      gnutls_strerror(code)));
    }
    is_critical = is_critical || critical != 0;
    const std::string_view purpose = code < 0 ? "" : text.data();
    if (purpose == needed || purpose == GNUTLS_KP_ANY) return {};
  }
  if (!is_critical) return {};
  return fail(EINVAL, fmt::format("Certificate {} purpose does not allow use with a TLS {}", path,
                                  name_of(role)));
}

Result<void> check_one(gnutls_x509_crt_t certificate, const std::string& path, Role role) {
  PLATTER_TRY(check_dates(certificate, path, role));
  PLATTER_TRY(check_constraints(certificate, path, role));
  PLATTER_TRY(check_usage(certificate, path, role));
  if (role == Role::kAuthority) return {};
  return check_purpose(certificate, path, role);
}

std::string_view reason_of(unsigned status) {
  if (status & GNUTLS_CERT_REVOKED) return "The certificate has been revoked";
  if (status & GNUTLS_CERT_SIGNER_NOT_FOUND) return "The certificate hasn't got a known issuer";
  if (status & GNUTLS_CERT_SIGNER_NOT_CA) return "The certificate's issuer is not a CA";
  if (status & GNUTLS_CERT_INSECURE_ALGORITHM) return "The certificate uses an insecure algorithm";
  return "The certificate is not trusted";
}

Result<void> check_vouched_for(CertificateList& own, const std::string& own_path,
                               CertificateList& authorities, const std::string& path) {
  unsigned status = 0;
  const int code = gnutls_x509_crt_list_verify(
      own.all().data(), static_cast<int>(own.all().size()), authorities.all().data(),
      static_cast<int>(authorities.all().size()), nullptr, 0, 0, &status);
  if (code < 0) {
    return fail(EINVAL, fmt::format("Unable to verify certificate {} against {}: {}", own_path,
                                    path, gnutls_strerror(code)));
  }
  if (status == 0) return {};
  return fail(EINVAL, fmt::format("Our own certificate {} failed validation against {}: {}",
                                  own_path, path, reason_of(status)));
}

}  // namespace

int parse_certificates(std::span<const uint8_t> text) { return CertificateList().parse(text); }

Result<void> check_certificates(const CertificateFile& authorities, const CertificateFile& own,
                                bool for_server) {
  const Role role = for_server ? Role::kServer : Role::kClient;
  CertificateList ours;
  if (!own.path.empty()) {
    if (const int code = ours.parse(own.text); code < 0) {
      return fail(EINVAL, fmt::format("Unable to import {} certificate {}: {}", name_of(role),
                                      own.path, gnutls_strerror(code)));
    }
  }
  CertificateList theirs;
  if (theirs.parse(authorities.text) < 0 || theirs.all().empty())
    return fail(EINVAL, fmt::format("Unable to import CA certificate list {}", authorities.path));
  if (!ours.all().empty()) PLATTER_TRY(check_one(ours.all().front(), own.path, role));
  for (gnutls_x509_crt_t certificate : theirs.all())
    PLATTER_TRY(check_one(certificate, authorities.path, Role::kAuthority));
  if (ours.all().empty()) return {};
  return check_vouched_for(ours, own.path, theirs, authorities.path);
}

}  // namespace platter::crypto
