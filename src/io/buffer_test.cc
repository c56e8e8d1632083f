#include "io/buffer.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace platter::io {
namespace {

struct Pieces {
  std::vector<uint8_t> bytes;
  std::vector<iovec> vectors;
  explicit Pieces(std::vector<size_t> lengths) {
    bytes.resize(std::accumulate(lengths.begin(), lengths.end(), size_t{0}));
    std::iota(bytes.begin(), bytes.end(), uint8_t{0});
    size_t offset = 0;
    for (size_t length : lengths) {
      vectors.push_back({bytes.data() + offset, length});
      offset += length;
    }
  }
};

TEST(BufferList, EveryWindowHasTheBytesOfItsRange) {
  Pieces pieces({3, 0, 5, 1, 0, 0, 7, 4});
  BufferList all(pieces.vectors);
  ASSERT_EQ(all.size(), 20u);
  for (size_t offset = 0; offset <= 20; ++offset) {
    for (size_t size = 0; size <= 20 - offset; ++size) {
      BufferList window = all.sub(offset, size);
      std::vector<uint8_t> out(size);
      window.copy_to(out);
      for (size_t i = 0; i < size; ++i) ASSERT_EQ(out[i], offset + i);
      std::vector<iovec> vectors(10);
      size_t count = window.fill(vectors);
      ASSERT_EQ(count, window.piece_count());
      size_t total = 0;
      for (size_t i = 0; i < count; ++i) total += vectors[i].iov_len;
      ASSERT_EQ(total, size);
      if (size > 2) {
        BufferList inner = window.sub(1, size - 2);
        std::vector<uint8_t> inner_out(size - 2);
        inner.copy_to(inner_out);
        ASSERT_EQ(inner_out[0], offset + 1);
      }
      if (count == 1) {
        ASSERT_EQ(window.contiguous(), pieces.bytes.data() + offset);
      }
      if (count > 1) {
        ASSERT_EQ(window.contiguous(), nullptr);
      }
    }
  }
}

TEST(BufferList, WholePiecesAreTheCallersOwnArray) {
  Pieces pieces({4, 4, 4});
  BufferList all(pieces.vectors);
  EXPECT_EQ(all.whole_pieces().data(), pieces.vectors.data());
  EXPECT_EQ(all.whole_pieces().size(), 3u);
  EXPECT_EQ(all.sub(4, 8).whole_pieces().size(), 2u);
  EXPECT_TRUE(all.sub(1, 11).whole_pieces().empty());
  EXPECT_TRUE(all.sub(0, 11).whole_pieces().empty());
}

TEST(BufferList, FillsAndFindsZeroes) {
  Pieces pieces({10, 10, 10});
  BufferList middle = BufferList(pieces.vectors).sub(5, 20);
  EXPECT_FALSE(middle.is_zero());
  middle.fill_zero();
  EXPECT_TRUE(middle.is_zero());
  EXPECT_EQ(pieces.bytes[4], 4);
  EXPECT_EQ(pieces.bytes[25], 25);
  std::vector<uint8_t> ones(20, 1);
  middle.copy_from(ones);
  EXPECT_EQ(pieces.bytes[5], 1);
  EXPECT_EQ(pieces.bytes[24], 1);
}

TEST(BufferList, AlignmentIsOfEveryPiece) {
  AlignedBuffer buffer(3 * 4096);
  EXPECT_TRUE(buffer.view().is_aligned(4096));
  EXPECT_FALSE(buffer.view(512, 4096).is_aligned(4096));
  EXPECT_TRUE(buffer.view(512, 4096).is_aligned(512));
  std::vector<iovec> vectors{{buffer.data(), 4096}, {buffer.data() + 4096, 512}};
  EXPECT_FALSE(BufferList(vectors).is_aligned(4096));
  EXPECT_TRUE(BufferList(vectors).is_aligned(512));
}

}  // namespace
}  // namespace platter::io
