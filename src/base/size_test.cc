#include "base/size.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace platter::base {
namespace {

constexpr uint64_t kGiB = uint64_t{1} << 30;

TEST(ParseSize, AcceptsWhatPeopleType) {
  struct Case {
    const char* text;
    uint64_t bytes;
  };
  for (const Case& c : {Case{"0", 0},
                        {"512", 512},
                        {"64k", 65536},
                        {"64K", 65536},
                        {"1b", 1},
                        {"1B", 1},
                        {"1M", 1 << 20},
                        {"1.5G", kGiB + kGiB / 2},
                        {"0.5k", 512},
                        {"2t", kGiB << 11},
                        {"3P", 3 * (kGiB << 20)},
                        {"7E", 7 * (kGiB << 30)},
                        {"0x10", 16},
                        {"0X10000", 65536},
                        {"0x1k", 1024},
                        {"0x1E", 30},
                        {"010", 10},
                        {"5.", 5},
                        {"5.k", 5120},
                        {"5.0", 5},
                        {" 1M", 1 << 20},
                        {"+1M", 1 << 20},
                        {"1.0001k", 1024},
                        {"0.0001k", 0},
                        {"1.7k", 1741},
                        {"1.99999999999999999999k", 2048},
                        {"9223372036854775807", kMaxSize}}) {
    Result<uint64_t> size = parse_size(c.text);
    ASSERT_TRUE(size.has_value()) << c.text << ": " << size.error().message();
    EXPECT_EQ(*size, c.bytes) << c.text;
  }
}

TEST(ParseSize, BareNumbersTakeTheDefaultUnit) {
  EXPECT_EQ(parse_size("2", 'k').value(), 2048u);
  EXPECT_EQ(parse_size("2b", 'k').value(), 2u);
  EXPECT_EQ(parse_size("0.5", 'M').value(), uint64_t{1} << 19);
}

TEST(ParseSize, RefusesWhatIsNoSize) {
  for (const char* text : {"",    " ",   "abc",  "-1",    "-0",  "1e3", "1.5", "1.1b",  ".5k",
                           ".",   "1kB", "1Z",   "1M ",   "1k5", "0x",  "0xg", "0x1.8", "0b1",
                           "inf", "nan", "1.e3", "1.5e1", "++1", "1 M", "k"}) {
    Result<uint64_t> size = parse_size(text);
    ASSERT_FALSE(size.has_value()) << text;
    EXPECT_EQ(size.error().code(), EINVAL) << text;
  }
  EXPECT_FALSE(parse_size(std::string_view("1\0", 2)).has_value());
}

TEST(ParseSize, SaysWhenAValueIsOutOfRange) {
  for (const char* text : {"8E", "9223372036854775808", "18446744073709551616", "8192P",
                           "99999999999999999999999G", "0xffffffffffffffff", "16E"}) {
    Result<uint64_t> size = parse_size(text);
    ASSERT_FALSE(size.has_value()) << text;
    EXPECT_EQ(size.error().code(), ERANGE) << text;
  }
  EXPECT_EQ(parse_wide_size("8E").value(), uint64_t{1} << 63);
  EXPECT_EQ(parse_wide_size("18446744073709551615").value(), UINT64_MAX);
  EXPECT_EQ(parse_wide_size("15.5E").value(), (uint64_t{31} << 59));
  EXPECT_EQ(parse_wide_size("16E").error().code(), ERANGE);
}

TEST(FormatSize, IsWhatQemuImgPrints) {
  struct Case {
    uint64_t bytes;
    const char* text;
  };
  for (const Case& c : {Case{0, "0 B"},
                        {512, "512 B"},
                        {1000, "0.977 KiB"},
                        {1024, "1 KiB"},
                        {1536, "1.5 KiB"},
                        {10752, "10.5 KiB"},
                        {65536, "64 KiB"},
                        {200704, "196 KiB"},
                        {999936, "976 KiB"},
                        {1022976, "999 KiB"},
                        {1023488, "1e+03 KiB"},
                        {1024000, "0.977 MiB"},
                        {1046528, "0.998 MiB"},
                        {1048064, "1 MiB"},
                        {1048576, "1 MiB"},
                        {1572864, "1.5 MiB"},
                        {102400000, "97.7 MiB"},
                        {1073741312, "1 GiB"},
                        {1084479488, "1.01 GiB"},
                        {12345678336, "11.5 GiB"},
                        {123456789504, "115 GiB"},
                        {1099511627776, "1 TiB"},
                        {1125899906842624, "1 PiB"},
                        {UINT64_MAX, "16 EiB"}}) {
    EXPECT_EQ(format_size(c.bytes), c.text) << c.bytes;
  }
}

}  // namespace
}  // namespace platter::base
