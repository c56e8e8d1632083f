#include "monitor/objects.h"

#include <gtest/gtest.h>

#include <fstream>

namespace platter::monitor {
namespace {

std::string error_of(std::string_view definition) {
  Objects objects;
  auto added = objects.add(definition);
  return added ? "" : added.error().message();
}

TEST(Objects, KeepsSecretsById) {
  Objects objects;
  ASSERT_TRUE(objects.add("secret,id=a,data=hunter,,2"));
  ASSERT_TRUE(objects.add("{'qom-type': 'secret', 'id': 'b', 'data': 'x'}"));
  ASSERT_TRUE(objects.secret("a"));
  EXPECT_EQ(objects.secret("a")->view(), "hunter,2");
  EXPECT_EQ(objects.secret("b")->view(), "x");
  EXPECT_EQ(objects.secret("c").error().message(), "No secret with id 'c'");
  EXPECT_FALSE(objects.throttle_group("a"));
}

TEST(Objects, DecodesBase64WithAndWithoutPadding) {
  Objects objects;
  ASSERT_TRUE(objects.add("secret,id=a,format=base64,data=aHVudGVyMg=="));
  ASSERT_TRUE(objects.add("secret,id=b,format=base64,data=aHVu\ndGVy"));
  ASSERT_TRUE(objects.add("secret,id=c,format=base64,data=aHVudGVyMg"));
  EXPECT_EQ(objects.secret("a")->view(), "hunter2");
  EXPECT_EQ(objects.secret("b")->view(), "hunter");
  EXPECT_EQ(objects.secret("c")->view(), "hunter2");
  EXPECT_EQ(error_of("secret,id=d,format=base64,data=a!b="),
            "Base64 data contains invalid characters");
  EXPECT_EQ(error_of("secret,id=d,format=base64,data=aHVu=ZGVy"),
            "Base64 data contains invalid characters");
}

TEST(Objects, ReadsSecretsFromFiles) {
  const std::string path = testing::TempDir() + "objects_test.secret";
  std::ofstream(path, std::ios::binary) << std::string("a\0b\n", 4);
  Objects objects;
  ASSERT_TRUE(objects.add("secret,id=a,file=" + path));
  EXPECT_EQ(objects.secret("a")->view(), std::string("a\0b\n", 4));
}

TEST(Objects, RefusesWhatIsNoObject) {
  EXPECT_EQ(error_of(""), "Parameter 'qom-type' is missing");
  EXPECT_EQ(error_of("frob,id=a"), "Parameter 'qom-type' does not accept value 'frob'");
  EXPECT_EQ(error_of("secret,data=x"), "Parameter 'id' is missing");
  EXPECT_EQ(error_of("secret,id"), "Expected '=' after parameter 'id'");
  EXPECT_EQ(error_of("secret,id=1,data=x"), "Parameter 'id' expects an identifier");
  EXPECT_EQ(error_of("secret,id=a,data=x,frob=1"), "Parameter 'frob' is unexpected");
  EXPECT_EQ(error_of("secret,id=a"), "Either 'file' or 'data' must be provided");
  EXPECT_EQ(error_of("secret,id=a,file=/"),
            "Unable to read /: Error reading file “/”: Is a directory");
  EXPECT_EQ(error_of("secret,id=a,data=x,keyid=b"), "No secret with id 'b'");
}

TEST(Objects, AnIdIsTakenOnce) {
  Objects objects;
  ASSERT_TRUE(objects.add("secret,id=a,data=x"));
  EXPECT_FALSE(objects.add("throttle-group,id=a"));
  EXPECT_EQ(objects.secret("a")->view(), "x");
}

TEST(Objects, ThrottleLimitsFitTogether) {
  Objects objects;
  ASSERT_TRUE(objects.add("throttle-group,id=t,limits.bps-total=1000,x-bps-total-max=2000"));
  EXPECT_EQ(objects.throttle_group("t")->buckets[3].average, 1000u);
  EXPECT_EQ(objects.throttle_group("t")->buckets[3].burst, 2000u);
  EXPECT_EQ(error_of("throttle-group,id=t,x-bps-total=10M"),
            "Parameter 'x-bps-total' expects integer");
  EXPECT_EQ(error_of("throttle-group,id=t,x-bps-total=-1"), "Property values cannot be negative");
  EXPECT_EQ(error_of("throttle-group,id=t,limits.bps-total=1,limits.bps-read=1"),
            "bps/iops/max total values and read/write values cannot be used at the same time");
  EXPECT_EQ(error_of("throttle-group,id=t,limits.iops-size=1"),
            "iops size requires an iops value to be set");
  EXPECT_EQ(error_of("throttle-group,id=t,limits.iops-read=10,limits.iops-read-max=5"),
            "bps_max/iops_max cannot be lower than bps/iops");
}

TEST(Objects, IoThreadsHaveTheirProperties) {
  Objects objects;
  ASSERT_TRUE(objects.add("iothread,id=i,poll-max-ns=100,aio-max-batch=7"));
  EXPECT_EQ(objects.io_thread("i")->poll_max_ns, 100u);
  EXPECT_EQ(objects.io_thread("i")->max_batch, 7u);
  EXPECT_EQ(error_of("iothread,id=i,poll-max-ns=x"), "Parameter 'poll-max-ns' expects integer");
}

TEST(Objects, HelpIsAsked) {
  EXPECT_NE(object_help("help"), "");
  EXPECT_NE(object_help("secret,help"), "");
  EXPECT_EQ(object_help("secret,id=help,data=x"), "");
  EXPECT_EQ(object_help("frob,help"), object_help("help"));
  EXPECT_EQ(object_help("authz-list,help"),
            "authz-list options:\n  policy=<QAuthZListPolicy>\n  rules=<QAuthZListRule>\n");
}

}  // namespace
}  // namespace platter::monitor
