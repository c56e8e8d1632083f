#include "tool/io_shell/numbers.h"

#include <gtest/gtest.h>

namespace platter::tool::io_shell {
namespace {

TEST(ShellNumbers, BytesAreSizesWithAnErrorForPeople) {
  EXPECT_EQ(parse_bytes("1.5k").value(), 1536u);
  EXPECT_EQ(parse_bytes("0x200").value(), 512u);
  EXPECT_EQ(parse_bytes("010").value(), 10u);
  EXPECT_EQ(parse_bytes("7E").value(), uint64_t{7} << 60);
  EXPECT_EQ(parse_bytes("8E").error().message(), "Parsing error: argument too large -- 8E");
  for (const char* bad : {"", "x", "-1", "1kk", "1e2", "1.5"}) {
    EXPECT_EQ(parse_bytes(bad).error().message(),
              std::string("Parsing error: non-numeric argument, or extraneous/unrecognized suffix "
                          "-- ") +
                  bad);
  }
}

TEST(ShellNumbers, APatternIsAByteInThreeNotations) {
  EXPECT_EQ(parse_pattern("0").value(), 0);
  EXPECT_EQ(parse_pattern("255").value(), 255);
  EXPECT_EQ(parse_pattern("0xCd").value(), 0xcd);
  EXPECT_EQ(parse_pattern("0377").value(), 255);
  EXPECT_EQ(parse_pattern("+7").value(), 7);
  EXPECT_EQ(parse_pattern("-0").value(), 0);
  for (const char* bad : {"", "256", "-1", "0x", "08", "1k", "99999999999999999999"}) {
    EXPECT_EQ(parse_pattern(bad).error().message(),
              std::string(bad) + " is not a valid pattern byte");
  }
  EXPECT_EQ(parse_count("0x10"), 16);
  EXPECT_EQ(parse_count("-1"), std::nullopt);
  EXPECT_EQ(parse_count("2147483648"), std::nullopt);
}

TEST(ShellNumbers, SizesHaveThreeDigitsOrNone) {
  EXPECT_EQ(format_bytes(0), "0 bytes");
  EXPECT_EQ(format_bytes(1023), "1023 bytes");
  EXPECT_EQ(format_bytes(258.186647), "258.186647 bytes");
  EXPECT_EQ(format_bytes(1024), "1 KiB");
  EXPECT_EQ(format_bytes(1536), "1.500 KiB");
  EXPECT_EQ(format_bytes(0x3d0000), "3.812 MiB");
  EXPECT_EQ(format_bytes(static_cast<double>(uint64_t{5} << 60)), "5 EiB");
}

TEST(ShellNumbers, ElapsedTimeGrowsFromSecondsToHours) {
  EXPECT_EQ(format_elapsed(0, false), "00.00 sec");
  EXPECT_EQ(format_elapsed(256'000'000, false), "00.26 sec");
  EXPECT_EQ(format_elapsed(0, true), "0:00:00.00");
  EXPECT_EQ(format_elapsed(65'200'000'000, false), "0:01:05.20");
  EXPECT_EQ(format_elapsed(59'999'000'000, false), "0:01:00.00");
  EXPECT_EQ(format_elapsed(uint64_t{90061} * 1'000'000'000, false), "25:01:01.00");
}

}  // namespace
}  // namespace platter::tool::io_shell
