#include "monitor/tls_objects.h"

#include <gtest/gtest.h>

#include <fstream>

#include "monitor/objects.h"
#include "support/scratch_directory.h"
#include "support/tls_authority.h"

namespace platter::monitor {
namespace {

class TlsObjectsTest : public testing::Test {
 protected:
  void SetUp() override {
    authority_.write_server(directory_);
    authority_.write_client(directory_);
    std::ofstream(directory_ + "/keys.psk") << "qemu:00112233\n";
  }
  std::string error_of(const std::string& definition) {
    auto added = objects_.add(definition);
    return added ? "" : added.error().message();
  }
  std::string credentials_fault(const std::string& id) {
    auto found = tls_credentials(objects_, id);
    return found ? "" : found.error().message();
  }

  support::ScratchDirectory scratch_;
  const std::string directory_ = scratch_.directory();
  support::TlsAuthority authority_;
  Objects objects_;
};

TEST_F(TlsObjectsTest, AServerHasThemById) {
  EXPECT_EQ(error_of("tls-creds-x509,id=x,endpoint=server,dir=" + directory_), "");
  EXPECT_EQ(error_of("tls-creds-psk,id=p,endpoint=server,dir=" + directory_), "");
  EXPECT_EQ(error_of("tls-creds-anon,id=a,endpoint=server"), "");
  for (const std::string id : {"x", "p", "a"}) EXPECT_EQ(credentials_fault(id), "");
  EXPECT_EQ(error_of("tls-creds-x509,id=no,endpoint=server,verify-peer=off,dir=" + directory_), "");
  EXPECT_TRUE((*tls_credentials(objects_, "x"))->verifies_peer());
  EXPECT_FALSE((*tls_credentials(objects_, "no"))->verifies_peer());
  EXPECT_FALSE((*tls_credentials(objects_, "p"))->verifies_peer());
}

TEST_F(TlsObjectsTest, WhatIsNotForAServerIsRefused) {
  EXPECT_EQ(credentials_fault("x"), "No TLS credentials with id 'x'");
  ASSERT_EQ(error_of("iothread,id=io"), "");
  ASSERT_EQ(error_of("authz-list,id=l"), "");
  EXPECT_EQ(credentials_fault("io"), "Object with id 'io' is not TLS credentials");
  EXPECT_EQ(credentials_fault("l"), "Object with id 'l' is not TLS credentials");
  for (const std::string kind : {"x509", "psk", "anon"}) {
    ASSERT_EQ(error_of("tls-creds-" + kind + ",id=" + kind + ",dir=" + directory_), "");
    EXPECT_EQ(credentials_fault(kind), "Expected TLS credentials for a server endpoint");
  }
}

TEST_F(TlsObjectsTest, WhoHasThemKeepsThem) {
  ASSERT_EQ(error_of("tls-creds-x509,id=x,endpoint=server,dir=" + directory_), "");
  const auto kept = tls_credentials(objects_, "x");
  ASSERT_TRUE(kept);
  ASSERT_TRUE(objects_.remove("x"));
  EXPECT_EQ(credentials_fault("x"), "No TLS credentials with id 'x'");
  EXPECT_TRUE((*kept)->is_server());
}

TEST_F(TlsObjectsTest, BadFilesLeaveNothingBehind) {
  const std::string definition = "tls-creds-x509,id=x,endpoint=server,dir=" + directory_;
  std::ofstream(directory_ + "/ca-cert.pem") << "garbage";
  EXPECT_EQ(error_of(definition),
            "Unable to import CA certificate list " + directory_ + "/ca-cert.pem");
  EXPECT_FALSE(objects_.properties("x"));
  authority_.write_server(directory_);
  EXPECT_EQ(error_of(definition), "");
}

TEST_F(TlsObjectsTest, ASecretOpensTheKey) {
  const support::TlsKey key;
  authority_.write(directory_, "server",
                   {.text = authority_.issue({}, key), .key = key.text("hunter2")});
  const std::string definition = "tls-creds-x509,id=x,endpoint=server,dir=" + directory_;
  EXPECT_NE(error_of(definition), "");
  EXPECT_EQ(error_of(definition + ",passwordid=s"), "No secret with id 's'");
  ASSERT_EQ(error_of("secret,id=s,data=hunter2"), "");
  ASSERT_EQ(error_of("secret,id=bytes,format=base64,data=/wBh"), "");
  ASSERT_EQ(error_of("iothread,id=io"), "");
  EXPECT_EQ(error_of(definition + ",passwordid=io"), "Object with id 'io' is not a secret");
  EXPECT_EQ(error_of(definition + ",passwordid=bytes"),
            "Data from secret bytes is not valid UTF-8");
  EXPECT_EQ(error_of(definition + ",passwordid=s"), "");
}

}  // namespace
}  // namespace platter::monitor
