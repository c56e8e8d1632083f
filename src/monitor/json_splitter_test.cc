#include "monitor/json_splitter.h"

#include <gtest/gtest.h>

namespace platter::monitor {
namespace {

// What comes out of `text`, fed `step` bytes at a time: values as JSON, errors as "!".
std::string split(std::string_view text, size_t step = 1000) {
  JsonSplitter splitter;
  std::string out;
  for (; !text.empty(); text.remove_prefix(std::min(step, text.size()))) {
    std::string_view piece = text.substr(0, step);
    while (auto value = splitter.next(piece)) out += (*value ? (*value)->dump() : "!") + " ";
    EXPECT_TRUE(piece.empty());
  }
  return out;
}

TEST(JsonSplitter, CutsWhereverTheBytesAreCut) {
  constexpr std::string_view kText =
      "{\"a\": [1, {\"b\": \"}\\\"\"}]} [2] 3 true \"x\" {'y': 'z'}{}\n";
  for (const size_t step : {1000, 1, 2, 3, 7}) {
    EXPECT_EQ(split(kText, step),
              "{\"a\": [1, {\"b\": \"}\\\"\"}]} [2] 3 true \"x\" {\"y\": \"z\"} {} ");
  }
}

TEST(JsonSplitter, AnswersWhatIsBrokenOnceAndGoesOn) {
  EXPECT_EQ(split("{] {}"), "! {} ");
  EXPECT_EQ(split("}{}"), "! {} ");
  EXPECT_EQ(split("{]}{}"), "! ! {} ");
  EXPECT_EQ(split("@@@ {}"), "! {} ");
  EXPECT_EQ(split("/* x */\n{}"), "! {} ");
  EXPECT_EQ(split("\"abc\n{}"), "! {} ");
  EXPECT_EQ(split("nope maybe {}"), "! ! {} ");
  EXPECT_EQ(split("{\"a\": nope}{}"), "! {} ");
  EXPECT_EQ(split("{\"a\" 1} 01 1. {}"), "! ! ! {} ");
  EXPECT_EQ(split("{\"a\": 1, \"a\": 2}{}"), "! {} ");
  EXPECT_EQ(split(": , {}"), "! ! {} ");
}

TEST(JsonSplitter, WaitsForTheRest) {
  EXPECT_EQ(split("{\"a\": [}"), "");
  EXPECT_EQ(split("12"), "");
  EXPECT_EQ(split("12 "), "12 ");
}

TEST(JsonSplitter, LimitsDepthAndSize) {
  const std::string deep(JsonSplitter::kMaxNesting, '[');
  EXPECT_EQ(split(deep), "");
  EXPECT_EQ(split(deep + "[ {}"), "! {} ");
  std::string_view long_text;
  const std::string text = "\"" + std::string(JsonSplitter::kMaxValueBytes, 'x');
  long_text = text;
  JsonSplitter splitter;
  const auto value = splitter.next(long_text);
  ASSERT_TRUE(value.has_value());
  ASSERT_FALSE(*value);
  EXPECT_EQ(value->error().message(), "JSON token size limit exceeded");
}

}  // namespace
}  // namespace platter::monitor
