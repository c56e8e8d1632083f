#include "base/bytes.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

namespace platter::base {
namespace {

TEST(Bytes, LoadsBothOrdersAtAnyOffset) {
  const std::array<uint8_t, 9> bytes = {0, 1, 2, 3, 4, 5, 6, 7, 8};
  EXPECT_EQ(load_big<uint16_t>(bytes, 1), 0x0102);
  EXPECT_EQ(load_big<uint64_t>(bytes, 1), 0x0102030405060708u);
  EXPECT_EQ(load_little<uint32_t>(bytes, 1), 0x04030201u);
  EXPECT_EQ(load_big<uint8_t>(bytes, 8), 8);
}

TEST(Bytes, StoresWhatItLoads) {
  std::array<uint8_t, 16> bytes{};
  store_big<uint32_t>(bytes, 3, 0xdeadbeef);
  EXPECT_EQ(bytes[3], 0xde);
  EXPECT_EQ(bytes[6], 0xef);
  EXPECT_EQ(bytes[7], 0);
  EXPECT_EQ(load_big<uint32_t>(bytes, 3), 0xdeadbeefu);
  store_little<uint64_t>(bytes, 8, 0x1122334455667788);
  EXPECT_EQ(bytes[8], 0x88);
  EXPECT_EQ(load_little<uint64_t>(bytes, 8), 0x1122334455667788u);
}

TEST(BytesDeathTest, AnAccessPastTheEndIsOurMistake) {
  const std::array<uint8_t, 4> bytes{};
  EXPECT_DEATH(load_big<uint32_t>(bytes, 1), "does not hold");
  EXPECT_DEATH(load_big<uint8_t>(bytes, SIZE_MAX), "does not hold");
}

TEST(Bytes, IsZeroSeesEveryByte) {
  EXPECT_TRUE(is_zero({}));
  for (size_t size : {1, 7, 255, 256, 257, 511, 512, 4096, 4099}) {
    std::vector<uint8_t> bytes(size + 1, 0);
    std::span<const uint8_t> unaligned = std::span(bytes).subspan(1);
    EXPECT_TRUE(is_zero(unaligned)) << size;
    for (size_t at : {size_t{1}, size / 2 + 1, size}) {
      bytes[at] = 0x80;
      EXPECT_FALSE(is_zero(unaligned)) << size << " at " << at;
      bytes[at] = 0;
    }
    bytes[0] = 1;  // before the span
    EXPECT_TRUE(is_zero(unaligned)) << size;
  }
}

}  // namespace
}  // namespace platter::base
