// TlsCredentials: what one end of TLS connections proves itself with and judges its peers by. Read
// from a directory and checked once, then shared by any number of connections, on any thread.
//
// The files have the names and formats that GnuTLS's own tools and QEMU use:
//
//   kCertificates   ca-cert.pem; ca-crl.pem (of a server; may be missing); server-cert.pem with
//                   server-key.pem, or client-cert.pem with client-key.pem (a client may have none)
//   kPreSharedKeys  keys.psk, lines of "user:hexadecimal key"; a server looks there for each peer
//   kAnonymous      none: secrecy from those who only listen
//   of a server     dh-params.pem, where those of RFC 7919 are not to be used; may be missing
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/secret_bytes.h"
#include "platter/error.h"

struct gnutls_session_int;

namespace platter::crypto {

struct TlsOptions {
  enum class Kind { kCertificates, kPreSharedKeys, kAnonymous };
  Kind kind = Kind::kCertificates;
  std::string directory = {};  // may be empty: kAnonymous
  bool server = false;
  bool verify_peer = true;   // kCertificates: a server's peer must have a certificate of the CA's
  bool sanity_check = true;  // kCertificates: dates, constraints and purposes, before they are used
  std::string priority = {};  // in GnuTLS's language; empty: its NORMAL set, from TLS 1.2 on
  std::string username = {};  // kPreSharedKeys, of a client; empty: "qemu"
  std::optional<base::SecretBytes> key_password = {};  // of the private key
};

class TlsCredentials {
 public:
  // Blocks for the files. The error says which one, and what is wrong with it.
  static Result<std::shared_ptr<const TlsCredentials>> load(const TlsOptions& options);
  ~TlsCredentials();
  TlsCredentials(const TlsCredentials&) = delete;
  TlsCredentials& operator=(const TlsCredentials&) = delete;

  TlsOptions::Kind kind() const;
  bool is_server() const;
  bool verifies_peer() const;  // by certificate

  // Makes a new session of this end use them. They outlive the session.
  void apply_to(gnutls_session_int* session) const;

 private:
  struct Loaded;
  explicit TlsCredentials(std::unique_ptr<Loaded> loaded);
  std::unique_ptr<Loaded> loaded_;
};

}  // namespace platter::crypto
