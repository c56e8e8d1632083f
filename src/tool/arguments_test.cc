#include "tool/arguments.h"

#include <gtest/gtest.h>

namespace platter::tool {
namespace {

constexpr CommandOption kOptions[] = {
    {.letter = 'o', .argument = "OPTIONS"},
    {.name = "output", .argument = "FORM"},
    {.name = "image-opts"},
    {.letter = 'f', .name = "format", .argument = "FMT"},
};
constexpr Command kProbe = {
    .name = "probe", .summary = "", .operands = "", .options = kOptions, .run = nullptr};

class ArgumentReadingTest : public testing::Test {
 protected:
  void give(size_t option, std::string value) {
    invocation_.options.push_back({&kOptions[option], std::move(value)});
  }

  Console console_{"qemu-img"};
  Invocation invocation_{Dialect::kQemuImg, kProbe, console_};
};

TEST_F(ArgumentReadingTest, OptionListsAreJoined) {
  EXPECT_EQ(join_option_lists(invocation_).value(), "");
  give(0, "a=1");
  give(0, "b=x,,y");
  give(0, "c=z,,");  // ends in an escaped comma
  EXPECT_EQ(join_option_lists(invocation_).value(), "a=1,b=x,,y,c=z,,");
}

TEST_F(ArgumentReadingTest, ListsThatWouldRunTogetherAreRefused) {
  for (const char* list : {"", ",", ",a=1", "a=1,", "a=1,,,"}) {
    invocation_.options.clear();
    give(0, list);
    auto joined = join_option_lists(invocation_);
    ASSERT_FALSE(joined) << list;
    EXPECT_EQ(joined.error().message(), std::string("Invalid option list: ") + list);
  }
}

TEST_F(ArgumentReadingTest, HelpIsAWordOfItsOwn) {
  EXPECT_TRUE(asks_for_help("help"));
  EXPECT_TRUE(asks_for_help("a=1,?"));
  EXPECT_TRUE(asks_for_help("help,a=1"));
  EXPECT_FALSE(asks_for_help("a=help"));
  EXPECT_FALSE(asks_for_help("helpful"));
  EXPECT_FALSE(asks_for_help(""));
}

TEST_F(ArgumentReadingTest, OutputIsHumanOrJson) {
  EXPECT_FALSE(json_output(invocation_).value());
  give(1, "json");
  EXPECT_TRUE(json_output(invocation_).value());
  give(1, "xml");
  EXPECT_FALSE(json_output(invocation_));
}

TEST_F(ArgumentReadingTest, ImageOptionsExcludeAFormat) {
  give(2, "");
  EXPECT_TRUE(check_common_options(invocation_));
  give(3, "raw");
  EXPECT_EQ(check_common_options(invocation_).error().message(),
            "--image-opts and --format are mutually exclusive");
}

TEST_F(ArgumentReadingTest, SizesThatDoNotFitSaySo) {
  EXPECT_EQ(parse_size_argument(invocation_, "image size", "1.5k"), 1536U);
  testing::internal::CaptureStderr();
  EXPECT_EQ(parse_size_argument(invocation_, "image size", "9E"), std::nullopt);
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            "qemu-img: Invalid image size specified. Must be between 0 and 9223372036854775807.\n");
  testing::internal::CaptureStderr();
  EXPECT_EQ(parse_size_argument(invocation_, "max length", "x"), std::nullopt);
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            "qemu-img: Invalid max length specified. You may use k, M, G, T, P or E suffixes for\n"
            "qemu-img: kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.\n");
}

}  // namespace
}  // namespace platter::tool
