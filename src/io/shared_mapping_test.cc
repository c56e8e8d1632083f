#include "io/shared_mapping.h"

#include <gtest/gtest.h>

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "io/descriptor.h"

namespace platter::io {
namespace {

constexpr uint64_t kBytes = 64 << 10;

Descriptor shared_file() {
  Descriptor file(memfd_create("shared", MFD_CLOEXEC));
  EXPECT_EQ(ftruncate(file.get(), kBytes), 0);
  return file;
}

TEST(SharedMapping, ShowsTheFileFromAnyOffset) {
  const Descriptor file = shared_file();
  const uint8_t byte = 0x5a;
  ASSERT_EQ(pwrite(file.get(), &byte, 1, 5000), 1);
  auto mapping = SharedMapping::map(file.get(), 4999, 100);
  ASSERT_TRUE(mapping) << mapping.error().message();
  EXPECT_EQ((*mapping)->data()[1], byte);
  (*mapping)->data()[2] = 0x77;
  uint8_t seen = 0;
  ASSERT_EQ(pread(file.get(), &seen, 1, 5001), 1);
  EXPECT_EQ(seen, 0x77);
  EXPECT_FALSE((*mapping)->was_lost());
}

TEST(SharedMapping, OutlivesAFileThatItsOwnerShortens) {
  const Descriptor file = shared_file();
  auto mapping = *SharedMapping::map(file.get(), 0, kBytes);
  auto other = *SharedMapping::map(file.get(), 0, kBytes);
  volatile uint8_t* last = mapping->data() + kBytes - 1;
  *last = 1;
  ASSERT_EQ(ftruncate(file.get(), 4096), 0);
  EXPECT_EQ(*last, 0);
  *last = 2;
  EXPECT_EQ(*last, 2);
  EXPECT_TRUE(mapping->was_lost());
  EXPECT_FALSE(other->was_lost());
}

TEST(SharedMapping, RefusesWhatCannotBe) {
  const Descriptor file = shared_file();
  EXPECT_EQ(SharedMapping::map(file.get(), 0, 0).error().code(), EINVAL);
  EXPECT_EQ(SharedMapping::map(file.get(), UINT64_MAX - 10, 100).error().code(), EINVAL);
  EXPECT_EQ(SharedMapping::map(-1, 0, 4096).error().code(), EBADF);
}

using SharedMappingDeathTest = testing::Test;

TEST(SharedMappingDeathTest, AFaultElsewhereEndsTheProcessAsBefore) {
  const Descriptor file = shared_file();
  auto mapping = *SharedMapping::map(file.get(), 0, kBytes);
  void* plain = mmap(nullptr, kBytes, PROT_READ, MAP_SHARED, file.get(), 0);
  ASSERT_NE(plain, MAP_FAILED);
  EXPECT_DEATH(
      {
        if (ftruncate(file.get(), 0) == 0) (void)*static_cast<volatile uint8_t*>(plain);
      },
      "");
  munmap(plain, kBytes);
}

}  // namespace
}  // namespace platter::io
