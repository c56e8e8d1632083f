#include "virtio/guest_memory.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace platter::virtio {
namespace {

uint8_t here[4][4096];

MemoryRegion region(uint64_t address, uint64_t bytes, int which) {
  return {.guest_address = address, .bytes = bytes, .host = here[which], .mapping = nullptr};
}

TEST(GuestMemory, FindsWhatLiesInOneRegion) {
  auto memory = GuestMemory::make({region(0x3000, 0x1000, 1), region(0x1000, 0x1000, 0)});
  ASSERT_TRUE(memory);
  EXPECT_EQ((*memory)->contiguous(0x1000, 0x1000), here[0]);
  EXPECT_EQ((*memory)->contiguous(0x3fff, 1), here[1] + 0xfff);
  EXPECT_EQ((*memory)->contiguous(0xfff, 1), nullptr);
  EXPECT_EQ((*memory)->contiguous(0x2000, 1), nullptr);
  EXPECT_EQ((*memory)->contiguous(0x1fff, 2), nullptr);
  EXPECT_EQ((*memory)->contiguous(0x1001, UINT64_MAX), nullptr);
  EXPECT_EQ((*memory)->contiguous(UINT64_MAX, 1), nullptr);
}

TEST(GuestMemory, GoesOnInTheNextRegion) {
  auto memory = GuestMemory::make(
      {region(0x1000, 0x1000, 0), region(0x2000, 0x1000, 1), region(0x4000, 0x1000, 2)});
  ASSERT_TRUE(memory);
  std::vector<iovec> pieces;
  ASSERT_TRUE((*memory)->append(0x1800, 0x1000, 8, pieces));
  ASSERT_EQ(pieces.size(), 2U);
  EXPECT_EQ(pieces[0].iov_base, here[0] + 0x800);
  EXPECT_EQ(pieces[0].iov_len, 0x800U);
  EXPECT_EQ(pieces[1].iov_base, here[1]);
  EXPECT_EQ(pieces[1].iov_len, 0x800U);
  EXPECT_FALSE((*memory)->append(0x2800, 0x1000, 8, pieces)) << "a hole follows";
  EXPECT_FALSE((*memory)->append(0x4fff, 2, 8, pieces)) << "nothing follows";
  pieces.clear();
  EXPECT_FALSE((*memory)->append(0x1800, 0x1000, 1, pieces)) << "two pieces, and one may be";
}

TEST(GuestMemory, ReachesTheEndOfTheAddressSpaceAndNotPastIt) {
  auto memory = GuestMemory::make({region(UINT64_MAX - 0x1000, 0x1000, 0)});
  ASSERT_TRUE(memory);
  std::vector<iovec> pieces;
  EXPECT_TRUE((*memory)->append(UINT64_MAX - 1, 1, 8, pieces));
  EXPECT_FALSE((*memory)->append(UINT64_MAX - 1, 2, 8, pieces));
  EXPECT_FALSE((*memory)->append(UINT64_MAX - 1, UINT64_MAX, 8, pieces));
}

TEST(GuestMemory, RefusesRegionsThatCannotBe) {
  const auto code = [](std::vector<MemoryRegion> regions) {
    auto memory = GuestMemory::make(std::move(regions));
    return memory ? 0 : memory.error().code();
  };
  EXPECT_EQ(code({}), 0);
  EXPECT_EQ(code({region(0, 0, 0)}), EINVAL);
  EXPECT_EQ(code({region(UINT64_MAX - 0xfff, 0x1000, 0)}), EINVAL) << "its end has no address";
  EXPECT_EQ(code({region(0, 0x1000, 0), region(0xfff, 0x1000, 1)}), EINVAL);
  EXPECT_EQ(code({region(0, 0x1000, 0), region(0, 0x1000, 1)}), EINVAL);
  std::vector<MemoryRegion> many;
  for (size_t i = 0; i <= GuestMemory::kMaxRegions; ++i)
    many.push_back(region(i * 0x1000, 0x1000, 0));
  EXPECT_EQ(code(many), EINVAL);
  many.pop_back();
  EXPECT_EQ(code(many), 0);
}

}  // namespace
}  // namespace platter::virtio
