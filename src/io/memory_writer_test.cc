#include "io/memory_writer.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <random>
#include <thread>
#include <vector>

namespace platter::io {
namespace {

constexpr size_t kChunk = size_t{256} << 10;

class MemoryWriterTest : public testing::Test {
 protected:
  MemoryWriterTest() : fd_(memfd_create("memory_writer_test", MFD_CLOEXEC)), writer_(fd_) {}
  ~MemoryWriterTest() override { close(fd_); }

  static std::vector<uint8_t> noise(size_t size, unsigned seed) {
    std::mt19937_64 random(seed);
    std::vector<uint8_t> bytes(size);
    std::ranges::generate(bytes, [&] { return static_cast<uint8_t>(random()); });
    return bytes;
  }
  static iovec piece_of(std::vector<uint8_t>& bytes) { return {bytes.data(), bytes.size()}; }
  std::vector<uint8_t> content() const {
    struct stat status{};
    EXPECT_EQ(fstat(fd_, &status), 0);
    std::vector<uint8_t> bytes(static_cast<size_t>(status.st_size));
    EXPECT_EQ(pread(fd_, bytes.data(), bytes.size(), 0), status.st_size);
    return bytes;
  }
  // False where the system does not let anybody fill holes: write() then never does.
  bool may_fill() {
    auto page = noise(kChunk, 1);
    if (ftruncate(fd_, kChunk) != 0) return false;
    const bool may = writer_.fill_hole(piece_of(page), 0) > 0;
    return ftruncate(fd_, 0) == 0 && may;
  }

  int fd_;
  MemoryWriter writer_;
};

TEST_F(MemoryWriterTest, FillsHoles) {
  if (!may_fill()) GTEST_SKIP() << "userfaultfd is not allowed here";
  ASSERT_EQ(ftruncate(fd_, 4 * kChunk), 0);
  auto bytes = noise(kChunk, 2);
  EXPECT_EQ(writer_.fill_hole(piece_of(bytes), kChunk), static_cast<int64_t>(kChunk));
  std::vector<uint8_t> expected(4 * kChunk);
  std::ranges::copy(bytes, expected.begin() + kChunk);
  EXPECT_EQ(content(), expected);
  struct stat status{};
  ASSERT_EQ(fstat(fd_, &status), 0);
  EXPECT_EQ(status.st_blocks * 512, static_cast<int64_t>(kChunk)) << "nothing beside it";
}

TEST_F(MemoryWriterTest, MakesTheFileGrow) {
  if (!may_fill()) GTEST_SKIP() << "userfaultfd is not allowed here";
  auto bytes = noise(kChunk, 3);
  EXPECT_EQ(writer_.fill_hole(piece_of(bytes), kChunk), static_cast<int64_t>(kChunk));
  std::vector<uint8_t> expected(2 * kChunk);
  std::ranges::copy(bytes, expected.begin() + kChunk);
  EXPECT_EQ(content(), expected);
}

TEST_F(MemoryWriterTest, LeavesDataToOthers) {
  if (!may_fill()) GTEST_SKIP() << "userfaultfd is not allowed here";
  auto before = noise(2 * kChunk, 4);
  ASSERT_EQ(pwrite(fd_, before.data(), before.size(), 0), static_cast<ssize_t>(before.size()));
  auto bytes = noise(kChunk, 5);
  EXPECT_EQ(writer_.fill_hole(piece_of(bytes), 0), -EEXIST);
  EXPECT_EQ(content(), before);
  // A hole that ends within the write is filled up to its end.
  ASSERT_EQ(ftruncate(fd_, 0), 0);
  ASSERT_EQ(pwrite(fd_, before.data(), kChunk, kChunk / 2), static_cast<ssize_t>(kChunk));
  EXPECT_EQ(writer_.fill_hole(piece_of(bytes), 0), static_cast<int64_t>(kChunk / 2));
  std::vector<uint8_t> expected(bytes.begin(), bytes.begin() + kChunk / 2);
  expected.insert(expected.end(), before.begin(), before.begin() + kChunk);
  EXPECT_EQ(content(), expected);
}

TEST_F(MemoryWriterTest, SaysWhyTheFileCannotBeWrittenTo) {
  auto bytes = noise(kChunk, 6);
  const iovec piece = piece_of(bytes);
  MemoryWriter nowhere(-1);
  EXPECT_EQ(nowhere.write({&piece, 1}, 0), -EBADF);
}

// Many writers at once: of holes, of the file's end and of what was written before, of whole pages
// and not.
TEST_F(MemoryWriterTest, WritesFromManyThreadsAreAllThere) {
  constexpr size_t kParts = 96;
  std::vector<uint8_t> expected(kParts * kChunk);
  for (unsigned round = 0; round < 3; ++round) {
    const auto bytes = noise(expected.size(), 7 + round);
    const size_t skewed = round == 2 ? 100 : 0;
    std::atomic<size_t> next{0};
    const auto work = [&] {
      for (size_t part; (part = next.fetch_add(1)) < kParts;) {
        // Neighbours are written at about the same time, and not in their order.
        size_t at = (part ^ 5) % kParts * kChunk + skewed;
        const size_t end = std::min(at + kChunk, expected.size());
        while (at < end) {
          const iovec piece = {const_cast<uint8_t*>(bytes.data()) + at, end - at};
          const int64_t written = writer_.write({&piece, 1}, at);
          ASSERT_GT(written, 0);
          at += static_cast<size_t>(written);
        }
      }
    };
    std::vector<std::jthread> threads;
    for (unsigned i = 0; i < 4; ++i) threads.emplace_back(work);
    threads.clear();
    std::ranges::copy(bytes.begin() + static_cast<ptrdiff_t>(skewed), bytes.end(),
                      expected.begin() + static_cast<ptrdiff_t>(skewed));
    ASSERT_EQ(content(), expected) << "round " << round;
  }
}

}  // namespace
}  // namespace platter::io
