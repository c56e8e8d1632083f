#include "monitor/authorization.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "monitor/objects.h"
#include "support/scratch_directory.h"

namespace platter::monitor {
namespace {

// "": let in.
std::string answer(const Objects& objects, const std::string& id, std::string_view identity) {
  auto allowed = Authorization(objects, id).allows(identity);
  return allowed ? "" : allowed.error().message();
}

TEST(Authorization, IsOfOne) {
  Objects objects;
  ASSERT_TRUE(objects.add("authz-simple,id=a,identity=C=GB,,CN=ann"));
  EXPECT_EQ(answer(objects, "a", "C=GB,CN=ann"), "");
  for (const std::string other : {"", "CN=ann", "C=GB,CN=anne", "c=gb,cn=ann", "*"}) {
    auto allowed = Authorization(objects, "a").allows(other);
    ASSERT_FALSE(allowed) << other;
    EXPECT_EQ(allowed.error().code(), EACCES);
  }
  EXPECT_EQ(answer(objects, "a", "eve"), "Authorization 'a': access is denied to 'eve'");
  EXPECT_EQ(answer(objects, "a", ""),
            "Authorization 'a': access is denied to a peer without a name");
}

TEST(Authorization, IsDeniedWhereThereIsNone) {
  Objects objects;
  ASSERT_TRUE(objects.add("iothread,id=io"));
  ASSERT_TRUE(objects.add("tls-creds-anon,id=t,endpoint=server"));
  for (const std::string id : {"nope", "io", "t", ""})
    EXPECT_EQ(answer(objects, id, "ann"), "There is no authorization '" + id + "'");
  const Authorization authorization(objects, "a");
  ASSERT_TRUE(objects.add("authz-list,id=a,policy=allow"));
  EXPECT_TRUE(authorization.allows("ann"));
  ASSERT_TRUE(objects.remove("a"));
  EXPECT_FALSE(authorization.allows("ann"));
}

TEST(Authorization, TheFirstRuleThatMatchesDecides) {
  Objects objects;
  ASSERT_TRUE(
      objects.add("{'qom-type': 'authz-list', 'id': 'a', 'policy': 'deny', 'rules': ["
                  "{'match': 'CN=bob', 'policy': 'deny'},"
                  "{'match': 'CN=b*', 'policy': 'allow', 'format': 'glob'},"
                  "{'match': 'CN=b*', 'policy': 'deny', 'format': 'exact'},"
                  "{'match': 'CN=c*', 'policy': 'allow'}]}"));
  EXPECT_NE(answer(objects, "a", "CN=bob"), "");
  EXPECT_EQ(answer(objects, "a", "CN=bill"), "");
  EXPECT_EQ(answer(objects, "a", "CN=b*"), "");
  EXPECT_NE(answer(objects, "a", "CN=cid"), "");
  EXPECT_EQ(answer(objects, "a", "CN=c*"), "");
  EXPECT_NE(answer(objects, "a", ""), "");
  ASSERT_TRUE(objects.add("authz-list,id=none"));
  EXPECT_NE(answer(objects, "none", "CN=bob"), "");
  ASSERT_TRUE(objects.add("authz-list,id=all,policy=allow,rules.0.match=eve,rules.0.policy=deny"));
  EXPECT_EQ(answer(objects, "all", "CN=bob"), "");
  EXPECT_NE(answer(objects, "all", "eve"), "");
}

TEST(Authorization, GlobsHaveStarsAndQuestionMarks) {
  EXPECT_TRUE(matches_glob("", ""));
  EXPECT_TRUE(matches_glob("*", ""));
  EXPECT_TRUE(matches_glob("**", "x"));
  EXPECT_TRUE(matches_glob("a*c", "abbc"));
  EXPECT_TRUE(matches_glob("a*b*c", "a-b-b-c"));
  EXPECT_TRUE(matches_glob("*CN=?nn*", "C=GB,CN=ann,O=x"));
  EXPECT_TRUE(matches_glob("CN=[x]\\,", "CN=[x]\\,"));
  EXPECT_TRUE(matches_glob("?", "\xc3\xa9"));
  EXPECT_TRUE(matches_glob("*??", "a\xe2\x82\xac"));
  EXPECT_FALSE(matches_glob("*??", "\xe2\x82\xac"));
  EXPECT_FALSE(matches_glob("", "x"));
  EXPECT_FALSE(matches_glob("?", ""));
  EXPECT_FALSE(matches_glob("a*c", "abcd"));
  EXPECT_FALSE(matches_glob("[a-z]", "b"));
  EXPECT_FALSE(matches_glob("a\\*", "a*"));
  // Takes no longer for many stars.
  std::string stars;
  for (int i = 0; i < 200; ++i) stars += "*a";
  EXPECT_FALSE(matches_glob(stars + "b", std::string(5000, 'a')));
}

class ListFileTest : public testing::Test {
 protected:
  void write(const std::string& text) { std::ofstream(path_) << text; }

  support::ScratchDirectory scratch_;
  std::string path_ = scratch_.path("list");
  Objects objects_;
};

constexpr char kAnn[] = R"({"policy": "deny", "rules": [{"match": "ann", "policy": "allow"}]})";
constexpr char kBob[] = R"({"policy": "deny", "rules": [{"match": "bob", "policy": "allow"}]})";

TEST_F(ListFileTest, IsReadAgain) {
  write(kAnn);
  ASSERT_TRUE(objects_.add("authz-listfile,id=now,filename=" + path_));
  ASSERT_TRUE(objects_.add("authz-listfile,id=then,refresh=off,filename=" + path_));
  EXPECT_EQ(answer(objects_, "now", "ann"), "");
  write(kBob);
  EXPECT_EQ(answer(objects_, "now", "bob"), "");
  EXPECT_NE(answer(objects_, "now", "ann"), "");
  EXPECT_EQ(answer(objects_, "then", "ann"), "");
  EXPECT_NE(answer(objects_, "then", "bob"), "");
}

TEST_F(ListFileTest, DeniesWhenItHasBecomeWrong) {
  write(kAnn);
  ASSERT_TRUE(objects_.add("authz-listfile,id=a,filename=" + path_));
  write(R"({"policy": "allow", "rules": [)");
  EXPECT_TRUE(answer(objects_, "a", "ann").starts_with("Authorization 'a': '" + path_ + "': "))
      << answer(objects_, "a", "ann");
  std::filesystem::remove(path_);
  EXPECT_EQ(answer(objects_, "a", "ann"),
            "Authorization 'a': Unable to read '" + path_ + "': No such file or directory");
  write(kAnn);
  EXPECT_EQ(answer(objects_, "a", "ann"), "");
}

TEST_F(ListFileTest, IsFoundFromAnotherDirectory) {
  write(kAnn);
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(scratch_.directory());
  const auto added = objects_.add("authz-listfile,id=a,filename=list");
  std::filesystem::current_path(before);
  ASSERT_TRUE(added) << added.error().message();
  EXPECT_EQ(answer(objects_, "a", "ann"), "");
}

TEST_F(ListFileTest, BrokenFilesAreRefused) {
  const std::string deep(1000, '[');
  for (const std::string& text :
       {std::string(),
        std::string("garbage"),
        std::string("[]"),
        std::string("5"),
        std::string("{"),
        std::string("{}{}"),
        std::string("{} x"),
        std::string("\xff\xfe"),
        std::string("{\"policy\":\"zip\"}"),
        std::string("{\"policy\":5}"),
        std::string("{\"rules\":5}"),
        std::string("{\"rules\":{}}"),
        std::string("{\"rules\":[5]}"),
        std::string("{\"rules\":[{}]}"),
        std::string("{\"rules\":[{\"match\":\"x\"}]}"),
        std::string("{\"rules\":[{\"policy\":\"allow\"}]}"),
        std::string("{\"rules\":[{\"match\":5,\"policy\":\"allow\"}]}"),
        std::string("{\"rules\":[{\"match\":\"x\",\"policy\":\"allow\",\"format\":\"zip\"}]}"),
        std::string("{\"rules\":[{\"match\":\"x\",\"policy\":\"allow\",\"zip\":1}]}"),
        std::string("{\"zip\":1}"),
        std::string("{\"policy\":\"allow\",\"policy\":\"deny\"}"),
        std::string("{\"rules\":") + deep,
        std::string("{\"rules\":[null]}"),
        std::string(3 << 20, ' ')}) {
    write(text);
    EXPECT_FALSE(objects_.add("authz-listfile,id=a,filename=" + path_)) << text.substr(0, 80);
  }
  // Every beginning of a good one.
  const std::string good = kAnn;
  for (size_t length = 0; length < good.size(); ++length) {
    write(good.substr(0, length));
    EXPECT_FALSE(objects_.add("authz-listfile,id=a,filename=" + path_)) << length;
  }
  EXPECT_FALSE(objects_.add("authz-listfile,id=a,filename=" + scratch_.directory()));
  EXPECT_FALSE(objects_.add("authz-listfile,id=a,filename="));
  write("{}");
  ASSERT_TRUE(objects_.add("authz-listfile,id=a,filename=" + path_));
  EXPECT_NE(answer(objects_, "a", "ann"), "");
}

}  // namespace
}  // namespace platter::monitor
