// TlsAuthority: makes certificates for a test, good ones and bad ones, valid from now on.
//
//   TlsAuthority authority;
//   authority.write_server(scratch.path("server"));   // the directory of server credentials
#pragma once

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include <cstdint>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <string>

#include "base/assert.h"

namespace platter::support {

inline constexpr time_t kTlsDay = 24 * 60 * 60;

struct Certificate {
  std::string text;  // PEM
  std::string key;
};

struct CertificateWish {
  std::string name = "CN=server";  // RFC 4514: the last part comes first
  time_t begin = time(nullptr) - kTlsDay;
  time_t end = time(nullptr) + kTlsDay;
  int is_ca = 0;                  // -1: does not say
  unsigned usage = 0;             // GNUTLS_KEY_...; 0: does not say
  const char* purpose = nullptr;  // GNUTLS_KP_...; critical
};

class TlsKey {
 public:
  TlsKey() {
    PLATTER_ASSERT(gnutls_x509_privkey_init(&key_) == 0);
    PLATTER_ASSERT(gnutls_x509_privkey_generate(key_, GNUTLS_PK_ECDSA,
                                                GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1),
                                                0) == 0);
  }
  ~TlsKey() { gnutls_x509_privkey_deinit(key_); }
  TlsKey(const TlsKey&) = delete;
  TlsKey& operator=(const TlsKey&) = delete;

  gnutls_x509_privkey_t get() const { return key_; }
  // Encrypted where there is a password.
  std::string text(const char* password = nullptr) const {
    gnutls_datum_t text{};
    const int code = password == nullptr
                         ? gnutls_x509_privkey_export2(key_, GNUTLS_X509_FMT_PEM, &text)
                         : gnutls_x509_privkey_export2_pkcs8(key_, GNUTLS_X509_FMT_PEM, password,
                                                             GNUTLS_PKCS_PBES2_AES_256, &text);
    PLATTER_ASSERT(code == 0);
    std::string copy(reinterpret_cast<const char*>(text.data), text.size);
    gnutls_free(text.data);
    return copy;
  }

 private:
  gnutls_x509_privkey_t key_ = nullptr;
};

class TlsAuthority {
 public:
  static CertificateWish wish() {
    return {.name = "CN=authority", .is_ca = 1, .usage = GNUTLS_KEY_KEY_CERT_SIGN};
  }
  explicit TlsAuthority(const CertificateWish& own = wish())
      : name_(own.name), certificate_(make(own, key_, nullptr)) {}
  ~TlsAuthority() { gnutls_x509_crt_deinit(certificate_); }
  TlsAuthority(const TlsAuthority&) = delete;
  TlsAuthority& operator=(const TlsAuthority&) = delete;

  std::string text() const { return text_of(certificate_); }
  std::string issue(const CertificateWish& wish, const TlsKey& key) const {
    gnutls_x509_crt_t made = make(wish, key, this);
    std::string text = text_of(made);
    gnutls_x509_crt_deinit(made);
    return text;
  }
  Certificate issue(const CertificateWish& wish) const {
    const TlsKey key;
    return {.text = issue(wish, key), .key = key.text()};
  }
  // The other authority's certificate, issued by this one.
  std::string vouch_for(const TlsAuthority& other) const {
    return issue({.name = other.name_, .is_ca = 1}, other.key_);
  }
  // A list that says that `certificate` is not to be trusted any more.
  std::string revoke(const std::string& certificate) const {
    gnutls_x509_crl_t list = nullptr;
    gnutls_x509_crt_t revoked = nullptr;
    PLATTER_ASSERT(gnutls_x509_crl_init(&list) == 0 && gnutls_x509_crt_init(&revoked) == 0);
    const gnutls_datum_t text = datum_of(certificate);
    PLATTER_ASSERT(gnutls_x509_crt_import(revoked, &text, GNUTLS_X509_FMT_PEM) == 0);
    const uint8_t number = 1;
    PLATTER_ASSERT(gnutls_x509_crl_set_version(list, 2) == 0 &&
                   gnutls_x509_crl_set_crt(list, revoked, time(nullptr) - kTlsDay) == 0 &&
                   gnutls_x509_crl_set_this_update(list, time(nullptr) - kTlsDay) == 0 &&
                   gnutls_x509_crl_set_next_update(list, time(nullptr) + kTlsDay) == 0 &&
                   gnutls_x509_crl_set_number(list, &number, sizeof number) == 0 &&
                   gnutls_x509_crl_sign2(list, certificate_, key_.get(), GNUTLS_DIG_SHA256, 0) ==
                       0);
    gnutls_datum_t made{};
    PLATTER_ASSERT(gnutls_x509_crl_export2(list, GNUTLS_X509_FMT_PEM, &made) == 0);
    std::string copy(reinterpret_cast<const char*>(made.data), made.size);
    gnutls_free(made.data);
    gnutls_x509_crt_deinit(revoked);
    gnutls_x509_crl_deinit(list);
    return copy;
  }

  // Directories of credentials.
  void write_server(const std::filesystem::path& directory,
                    const CertificateWish& wish = {}) const {
    write(directory, "server", issue(wish));
  }
  void write_client(const std::filesystem::path& directory,
                    const CertificateWish& wish = {.name = "CN=client"}) const {
    write(directory, "client", issue(wish));
  }
  void write(const std::filesystem::path& directory, const std::string& end,
             const Certificate& certificate) const {
    std::filesystem::create_directories(directory);
    std::ofstream(directory / "ca-cert.pem") << text();
    std::ofstream(directory / (end + "-cert.pem")) << certificate.text;
    std::ofstream(directory / (end + "-key.pem")) << certificate.key;
  }

 private:
  static gnutls_datum_t datum_of(const std::string& text) {
    return {reinterpret_cast<uint8_t*>(const_cast<char*>(text.data())),
            static_cast<unsigned>(text.size())};
  }

  static std::string text_of(gnutls_x509_crt_t certificate) {
    gnutls_datum_t text{};
    PLATTER_ASSERT(gnutls_x509_crt_export2(certificate, GNUTLS_X509_FMT_PEM, &text) == 0);
    std::string copy(reinterpret_cast<const char*>(text.data), text.size);
    gnutls_free(text.data);
    return copy;
  }

  // `issuer` null: it signs itself.
  static gnutls_x509_crt_t make(const CertificateWish& wish, const TlsKey& key,
                                const TlsAuthority* issuer) {
    gnutls_x509_crt_t made = nullptr;
    PLATTER_ASSERT(gnutls_x509_crt_init(&made) == 0);
    static uint32_t serial = 0;
    const uint32_t number = __builtin_bswap32(++serial);
    PLATTER_ASSERT(gnutls_x509_crt_set_version(made, 3) == 0 &&
                   gnutls_x509_crt_set_key(made, key.get()) == 0 &&
                   gnutls_x509_crt_set_dn(made, wish.name.c_str(), nullptr) == 0 &&
                   gnutls_x509_crt_set_serial(made, &number, sizeof number) == 0 &&
                   gnutls_x509_crt_set_activation_time(made, wish.begin) == 0 &&
                   gnutls_x509_crt_set_expiration_time(made, wish.end) == 0);
    if (wish.is_ca >= 0)
      PLATTER_ASSERT(
          gnutls_x509_crt_set_basic_constraints(made, static_cast<unsigned>(wish.is_ca), -1) == 0);
    if (wish.usage != 0) PLATTER_ASSERT(gnutls_x509_crt_set_key_usage(made, wish.usage) == 0);
    if (wish.purpose != nullptr)
      PLATTER_ASSERT(gnutls_x509_crt_set_key_purpose_oid(made, wish.purpose, 1) == 0);
    gnutls_x509_crt_t by = issuer != nullptr ? issuer->certificate_ : made;
    const TlsKey& with = issuer != nullptr ? issuer->key_ : key;
    PLATTER_ASSERT(gnutls_x509_crt_sign2(made, by, with.get(), GNUTLS_DIG_SHA256, 0) == 0);
    return made;
  }

  TlsKey key_;
  std::string name_;
  gnutls_x509_crt_t certificate_;
};

}  // namespace platter::support
