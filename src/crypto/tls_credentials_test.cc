#include "crypto/tls_credentials.h"

#include <gtest/gtest.h>

#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "crypto/tls_files.h"
#include "support/scratch_directory.h"
#include "support/tls_authority.h"

namespace platter::crypto {
namespace {

using support::CertificateWish;
using support::kTlsDay;
using support::TlsAuthority;
using support::TlsKey;
using Kind = TlsOptions::Kind;

class TlsCredentialsTest : public testing::Test {
 protected:
  void write(const std::string& name, const std::string& text) {
    std::ofstream(scratch_.path(name)) << text;
  }
  // What is wrong with the directory; empty: nothing.
  std::string fault(TlsOptions options) const {
    options.directory = scratch_.directory();
    auto loaded = TlsCredentials::load(options);
    if (loaded) return "";
    std::string text = loaded.error().message();
    for (size_t at; (at = text.find(scratch_.directory())) != text.npos;)
      text.replace(at, scratch_.directory().size(), "D");
    return text;
  }
  std::string server_fault(bool sanity_check = true) const {
    return fault({.server = true, .sanity_check = sanity_check});
  }

  support::ScratchDirectory scratch_;
  TlsAuthority authority_;
};

TEST_F(TlsCredentialsTest, GoodFilesOfEveryKind) {
  authority_.write_server(scratch_.directory());
  EXPECT_EQ(server_fault(), "");
  EXPECT_EQ(fault({}), "");  // a client that has no certificate
  authority_.write_client(scratch_.directory());
  EXPECT_EQ(fault({}), "");
  EXPECT_EQ(fault({.kind = Kind::kAnonymous, .server = true}), "");
  EXPECT_EQ(fault({.kind = Kind::kAnonymous}), "");
  write("keys.psk", "rich:0123456789abcdef\nqemu:00112233\n");
  EXPECT_EQ(fault({.kind = Kind::kPreSharedKeys, .server = true}), "");
  EXPECT_EQ(fault({.kind = Kind::kPreSharedKeys}), "");
  EXPECT_TRUE(TlsCredentials::load({.kind = Kind::kAnonymous, .server = true}));
}

TEST_F(TlsCredentialsTest, MissingFilesAreNamed) {
  authority_.write_server(scratch_.directory());
  for (const std::string name : {"server-key.pem", "server-cert.pem", "ca-cert.pem"}) {
    std::filesystem::remove(scratch_.path(name));
    EXPECT_EQ(server_fault(),
              "Unable to access credentials D/" + name + ": No such file or directory");
  }
  EXPECT_EQ(fault({.kind = Kind::kPreSharedKeys, .server = true}),
            "Unable to access credentials D/keys.psk: No such file or directory");
  EXPECT_EQ(TlsCredentials::load({}).error().message(), "Missing 'dir' property value");
}

TEST_F(TlsCredentialsTest, ACertificateOfTheAuthorityIsFitForThat) {
  const time_t now = time(nullptr);
  auto with = [&](CertificateWish own) {
    own.name = "CN=authority";
    TlsAuthority other(own);
    other.write_server(scratch_.directory());
    return server_fault();
  };
  EXPECT_EQ(with({.begin = now - 2 * kTlsDay, .end = now - kTlsDay, .is_ca = 1}),
            "The CA certificate D/ca-cert.pem has expired");
  EXPECT_EQ(with({.begin = now + kTlsDay, .end = now + 2 * kTlsDay, .is_ca = 1}),
            "The CA certificate D/ca-cert.pem is not yet active");
  EXPECT_EQ(with({.is_ca = 0}), "The certificate D/ca-cert.pem basic constraints do not show a CA");
  EXPECT_EQ(with({.is_ca = -1}),
            "The certificate D/ca-cert.pem is missing basic constraints for a CA");
  EXPECT_EQ(with({.is_ca = 1, .usage = GNUTLS_KEY_DIGITAL_SIGNATURE}),
            "Certificate D/ca-cert.pem usage does not permit certificate signing");
  EXPECT_EQ(with({.is_ca = 1}), "");
}

TEST_F(TlsCredentialsTest, OurOwnCertificateIsFitForAServer) {
  const time_t now = time(nullptr);
  auto with = [&](const CertificateWish& wish) {
    authority_.write_server(scratch_.directory(), wish);
    return server_fault();
  };
  EXPECT_EQ(with({.begin = now - 2 * kTlsDay, .end = now - kTlsDay}),
            "The server certificate D/server-cert.pem has expired");
  EXPECT_EQ(server_fault(false), "");
  EXPECT_EQ(with({.begin = now + kTlsDay, .end = now + 2 * kTlsDay}),
            "The server certificate D/server-cert.pem is not yet active");
  EXPECT_EQ(with({.is_ca = 1}),
            "The certificate D/server-cert.pem basic constraints show a CA, but we need one for a "
            "server");
  EXPECT_EQ(with({.usage = GNUTLS_KEY_KEY_CERT_SIGN}),
            "Certificate D/server-cert.pem usage does not permit digital signature");
  EXPECT_EQ(with({.purpose = GNUTLS_KP_TLS_WWW_CLIENT}),
            "Certificate D/server-cert.pem purpose does not allow use with a TLS server");
  EXPECT_EQ(with({.usage = GNUTLS_KEY_DIGITAL_SIGNATURE, .purpose = GNUTLS_KP_TLS_WWW_SERVER}), "");
  EXPECT_EQ(with({.purpose = GNUTLS_KP_ANY}), "");
}

TEST_F(TlsCredentialsTest, AnotherAuthoritysCertificateIsRefused) {
  authority_.write_server(scratch_.directory());
  const TlsAuthority other({.name = "CN=other", .is_ca = 1});
  write("ca-cert.pem", other.text());
  EXPECT_EQ(server_fault(),
            "Our own certificate D/server-cert.pem failed validation against D/ca-cert.pem: The "
            "certificate hasn't got a known issuer");
  EXPECT_EQ(server_fault(false), "");
}

TEST_F(TlsCredentialsTest, ACertificateMayComeWithThoseThatLeadToTheAuthority) {
  const TlsAuthority middle({.name = "CN=middle", .is_ca = 1});  // as itself, by its own word
  const TlsKey key;
  authority_.write_server(scratch_.directory());
  write("server-cert.pem", middle.issue({}, key));
  write("server-key.pem", key.text());
  EXPECT_NE(server_fault(), "");
  write("server-cert.pem", middle.issue({}, key) + authority_.vouch_for(middle));
  EXPECT_EQ(server_fault(), "");
}

TEST_F(TlsCredentialsTest, AKeyBelongsToItsCertificate) {
  authority_.write_server(scratch_.directory());
  write("server-key.pem", TlsKey().text());
  EXPECT_EQ(server_fault(),
            "Cannot load certificate 'D/server-cert.pem' & key 'D/server-key.pem': "
            "The certificate and the given key do not match.");
}

TEST_F(TlsCredentialsTest, AnEncryptedKeyNeedsItsPassword) {
  const TlsKey key;
  authority_.write(scratch_.directory(), "server",
                   {.text = authority_.issue({}, key), .key = key.text("hunter2")});
  const std::string failure =
      "Cannot load certificate 'D/server-cert.pem' & key 'D/server-key.pem': Decryption has "
      "failed.";
  EXPECT_EQ(server_fault(), failure);
  TlsOptions options;
  options.server = true;
  options.directory = scratch_.directory();
  options.key_password = base::SecretBytes::copy_of("wrong");
  EXPECT_FALSE(TlsCredentials::load(options));
  options.key_password = base::SecretBytes::copy_of("hunter2");
  EXPECT_TRUE(TlsCredentials::load(options));
}

TEST_F(TlsCredentialsTest, FilesThatAreNotWhatTheyShouldBe) {
  const std::string garbage[] = {"", "garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n",
                                 std::string(kMaxTlsFileBytes + 1, 'x')};
  for (const std::string name :
       {"ca-cert.pem", "server-cert.pem", "server-key.pem", "ca-crl.pem", "dh-params.pem"}) {
    for (const std::string& text : garbage) {
      authority_.write_server(scratch_.directory());
      write(name, text);
      EXPECT_NE(server_fault(), "") << name << " " << text.substr(0, 40);
      EXPECT_NE(server_fault(false), "") << name << " " << text.substr(0, 40);
    }
    std::filesystem::remove(scratch_.path(name));
    ASSERT_EQ(mkfifo(scratch_.path(name).c_str(), 0600), 0);
    EXPECT_NE(server_fault(), "") << name;
    std::filesystem::remove(scratch_.path(name));
    std::filesystem::create_directory(scratch_.path(name));
    EXPECT_NE(server_fault(), "") << name;
    std::filesystem::remove(scratch_.path(name));
  }
}

TEST_F(TlsCredentialsTest, APriorityIsOfGnuTlssLanguage) {
  EXPECT_EQ(fault({.kind = Kind::kAnonymous, .priority = "SECURE256"}), "");
  EXPECT_EQ(fault({.kind = Kind::kAnonymous, .priority = "FROB"}),
            "Unable to set TLS priority 'FROB': The request is invalid.");
}

TEST_F(TlsCredentialsTest, PreSharedKeysAreFoundByUser) {
  write("keys.psk", "qemurich:00112233\nrich:xyz\nqemu:00112233\r\nempty:\n");
  const auto of = [&](const std::string& user) {
    return fault({.kind = Kind::kPreSharedKeys, .username = user});
  };
  EXPECT_EQ(of(""), "");
  EXPECT_EQ(of("qemurich"), "");
  EXPECT_EQ(of("rich"), "Cannot set PSK client credentials: Error in parsing.");
  EXPECT_NE(of("empty"), "");
  EXPECT_EQ(of("qem"), "Username qem not found in PSK file D/keys.psk");
  EXPECT_EQ(fault({.kind = Kind::kPreSharedKeys, .server = true, .username = "x"}),
            "username should not be set when endpoint=server");
}

}  // namespace
}  // namespace platter::crypto
