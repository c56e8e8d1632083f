#include "base/json.h"

#include <gtest/gtest.h>

namespace platter::base {
namespace {

std::string round_trip(std::string_view text) {
  Result<Json> json = Json::parse(text);
  return json ? json->dump() : "error: " + json.error().message();
}

TEST(Json, PrettyLayoutIsWhatScriptsKnow) {
  Json info = Json::object();
  info.add("virtual-size", uint64_t{1048576});
  info.add("filename", "x.q");
  Json& children = info.add("children", Json::array());
  children.append(Json(Json::Object{{"name", "file"}, {"dirty-flag", false}}));
  children.append(-1);
  info.add("none", Json::array());
  info.add("nothing", Json::object());
  info.add("backing", nullptr);
  EXPECT_EQ(info.dump_pretty(), R"({
    "virtual-size": 1048576,
    "filename": "x.q",
    "children": [
        {
            "name": "file",
            "dirty-flag": false
        },
        -1
    ],
    "none": [],
    "nothing": {},
    "backing": null
})");
  EXPECT_EQ(info.dump(),
            R"({"virtual-size": 1048576, "filename": "x.q", "children": [{"name": "file", )"
            R"("dirty-flag": false}, -1], "none": [], "nothing": {}, "backing": null})");
}

TEST(Json, StringsAreEscapedToAscii) {
  EXPECT_EQ(Json("a\"\\\b\f\n\r\t/").dump(), R"("a\"\\\b\f\n\r\t/")");
  EXPECT_EQ(Json("\x01\x7f").dump(), R"("\u0001\u007F")");
  EXPECT_EQ(Json("é漢😀").dump(), R"("\u00E9\u6F22\uD83D\uDE00")");
  EXPECT_EQ(Json(std::string_view("\0", 1)).dump(), R"("\u0000")");
}

TEST(Json, BytesThatAreNotUtf8BecomeReplacements) {
  EXPECT_EQ(Json("c\xff.").dump(), R"("c\uFFFD.")");
  EXPECT_EQ(Json("\xed\xa0\x80").dump(), R"("\uFFFD")");  // a lone surrogate
  EXPECT_EQ(Json("\xe6\xbc").dump(), R"("\uFFFD")");      // cut short
  EXPECT_EQ(Json("\xe6\xbc"
                 "a")
                .dump(),
            R"("\uFFFDa")");
  EXPECT_EQ(Json("\xc1\x81\x80").dump(), R"("\uFFFD\uFFFD")");  // overlong, then a stray byte
}

TEST(Json, ParsingKeepsOrderAndNumbersApart) {
  EXPECT_EQ(round_trip(R"( {"z":1,"a":[-2,18446744073709551615,1.5,true,null,"s"],"m":{}} )"),
            R"({"z": 1, "a": [-2, 18446744073709551615, 1.5, true, null, "s"], "m": {}})");
  Json json = Json::parse("[1, -1, 1.0]").value();
  const auto& items = *json.get_if<Json::Array>();
  EXPECT_NE(items[0].get_if<uint64_t>(), nullptr);
  EXPECT_NE(items[1].get_if<int64_t>(), nullptr);
  EXPECT_NE(items[2].get_if<double>(), nullptr);
}

TEST(Json, ANegativeZeroStaysOne) {
  EXPECT_EQ(round_trip("[-0.0, 0.0, -0]"), "[-0.0, 0, 0]");
}

TEST(Json, FindAndAbsence) {
  Json json = Json::parse(R"({"a": {"b": "c"}})").value();
  ASSERT_NE(json.find("a"), nullptr);
  EXPECT_EQ(*json.find("a")->find("b")->get_if<std::string>(), "c");
  EXPECT_EQ(json.find("b"), nullptr);
}

TEST(Json, SingleQuotesDoAsWell) {
  EXPECT_EQ(round_trip(R"({'driver': 'raw', "file": "it's"})"),
            R"({"driver": "raw", "file": "it's"})");
  EXPECT_EQ(round_trip(R"(['say "hi"', 'it\'s', 'back\\', "q\"'"])"),
            R"(["say \"hi\"", "it's", "back\\", "q\"'"])");
}

TEST(Json, ErrorsSayWhere) {
  EXPECT_EQ(Json::parse("{\"a\" 1}").error().message(), "JSON parse error at byte 6, near '1'");
  EXPECT_EQ(Json::parse(R"({"a": 1, "a": 2})").error().message(),
            "JSON parse error, duplicate key 'a'");
  for (const char* text : {"", "{", "[1,]", "{\"a\"}", "x", "tru", "\"", "'", "'a\\", "1 2",
                           "[1e999]", "\"\xff\"", "nan", "{1: 2}"}) {
    EXPECT_FALSE(Json::parse(text).has_value()) << text;
  }
}

TEST(Json, NestingIsLimited) {
  std::string deepest = std::string(Json::kMaxDepth, '[') + std::string(Json::kMaxDepth, ']');
  EXPECT_EQ(round_trip(deepest), deepest);
  std::string hostile(1 << 20, '[');
  EXPECT_EQ(Json::parse(hostile).error().message(), "JSON is nested more than 64 levels deep");
  std::string objects;
  for (int i = 0; i < 100; ++i) objects += "{\"a\":";
  EXPECT_EQ(Json::parse(objects).error().message(), "JSON is nested more than 64 levels deep");
}

}  // namespace
}  // namespace platter::base
