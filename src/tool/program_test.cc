#include "tool/program.h"

#include <gtest/gtest.h>

#include <array>

#include "tool/command_table.h"

namespace platter::tool {
namespace {

constexpr CommandOption kOptions[] = {
    {.letter = 'f', .name = "format", .argument = "FMT"},
    {.letter = 'q'},
    {.name = "output", .argument = "FORM"},
    {.letter = 'o', .argument = "OPTIONS"},
};
constexpr Command kProbe = {
    .name = "probe", .summary = "", .operands = "FILE", .options = kOptions, .run = nullptr};

class ArgumentsTest : public testing::Test {
 protected:
  std::optional<int> parse(std::vector<std::string> words) {
    words.insert(words.begin(), "probe");
    std::vector<char*> arguments;
    for (auto& word : words) arguments.push_back(word.data());
    testing::internal::CaptureStderr();
    auto status = parse_arguments(invocation_, arguments);
    said_ = testing::internal::GetCapturedStderr();
    return status;
  }

  Console console_{"qemu-img"};
  Invocation invocation_{Dialect::kQemuImg, kProbe, console_};
  std::string said_;
};

TEST_F(ArgumentsTest, OptionsAndOperandsMayMix) {
  EXPECT_EQ(parse({"a", "-f", "raw", "b", "--output=json", "-q", "--", "-c"}), std::nullopt);
  EXPECT_EQ(invocation_.operands, (std::vector<std::string>{"a", "b", "-c"}));
  EXPECT_EQ(invocation_.value("format"), "raw");
  EXPECT_EQ(invocation_.value("output"), "json");
  EXPECT_TRUE(invocation_.has("q"));
  EXPECT_FALSE(invocation_.has("o"));
}

TEST_F(ArgumentsTest, TheLastOneCountsAndAllAreKept) {
  EXPECT_EQ(parse({"-o", "a=1", "-o", "b=2", "-f", "raw", "--format=qcow2"}), std::nullopt);
  EXPECT_EQ(invocation_.values("o"), (std::vector<std::string>{"a=1", "b=2"}));
  EXPECT_EQ(invocation_.value("format"), "qcow2");
}

TEST_F(ArgumentsTest, LongNamesMayBeAbbreviated) {
  EXPECT_EQ(parse({"--out=json"}), std::nullopt);
  EXPECT_EQ(invocation_.value("output"), "json");
}

TEST_F(ArgumentsTest, UnknownOptionIsNamed) {
  EXPECT_EQ(parse({"--frob"}), 1);
  EXPECT_EQ(said_,
            "qemu-img: unrecognized option '--frob'\nTry 'qemu-img --help' for more information\n");
}

TEST_F(ArgumentsTest, MissingValueIsNamed) {
  EXPECT_EQ(parse({"-f"}), 1);
  EXPECT_EQ(
      said_,
      "qemu-img: missing argument for option '-f'\nTry 'qemu-img --help' for more information\n");
}

TEST_F(ArgumentsTest, NativeOptionsAreUnknownUnderACompatName) {
  EXPECT_EQ(parse({"--reactors", "2"}), 1);
  Invocation native(Dialect::kPlatter, kProbe, console_);
  std::array<std::string, 3> words = {"probe", "--reactors", "2"};
  std::array<char*, 3> arguments = {words[0].data(), words[1].data(), words[2].data()};
  EXPECT_EQ(parse_arguments(native, arguments), std::nullopt);
  EXPECT_EQ(native.value("reactors"), "2");
}

TEST(DialectTest, FollowsTheNameOfTheProgram) {
  EXPECT_EQ(dialect_of("/usr/bin/qemu-img"), Dialect::kQemuImg);
  EXPECT_EQ(dialect_of("qemu-img"), Dialect::kQemuImg);
  EXPECT_EQ(dialect_of("./platter"), Dialect::kPlatter);
  EXPECT_EQ(dialect_of("qemu-img/platter"), Dialect::kPlatter);
}

}  // namespace
}  // namespace platter::tool
