#include "format/qcow2/compressed.h"

#include <gtest/gtest.h>
#include <zlib.h>
#include <zstd.h>

#include <cerrno>
#include <random>
#include <thread>

namespace platter::format::qcow2 {
namespace {

constexpr size_t kCluster = 65536;
constexpr size_t kSector = 512;

std::vector<uint8_t> sample(size_t size, unsigned seed = 1) {
  std::mt19937 random(seed);
  std::vector<uint8_t> bytes(size);
  for (auto& byte : bytes) byte = static_cast<uint8_t>("platter "[random() % 8]);
  return bytes;
}

std::vector<uint8_t> deflated(std::span<const uint8_t> in, int window_bits) {
  z_stream stream{};
  deflateInit2(&stream, 6, Z_DEFLATED, window_bits, 9, Z_DEFAULT_STRATEGY);
  std::vector<uint8_t> out(compressBound(in.size()) + 64);
  stream.next_in = const_cast<Bytef*>(in.data());
  stream.avail_in = static_cast<uInt>(in.size());
  stream.next_out = out.data();
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::vector<uint8_t> zstandard(std::span<const uint8_t> in) {
  std::vector<uint8_t> out(ZSTD_compressBound(in.size()));
  out.resize(ZSTD_compress(out.data(), out.size(), in.data(), in.size(), 3));
  return out;
}

// As it lies in an image: followed by whatever fills its last sector.
std::vector<uint8_t> padded(std::vector<uint8_t> stream) {
  stream.resize((stream.size() + kSector - 1) / kSector * kSector, 0xa5);
  return stream;
}

TEST(Compressed, DeflateWithSmallAndLargeWindow) {
  DecompressorPool pool;
  const auto data = sample(kCluster);
  for (int window : {-12, -15}) {
    std::vector<uint8_t> out(kCluster);
    const auto done =
        pool.decompress(CompressionType::kDeflate, padded(deflated(data, window)), out);
    ASSERT_TRUE(done.has_value());
    EXPECT_EQ(out, data);
  }
}

TEST(Compressed, Zstd) {
  DecompressorPool pool;
  const auto data = sample(kCluster);
  std::vector<uint8_t> out(kCluster);
  ASSERT_TRUE(pool.decompress(CompressionType::kZstd, padded(zstandard(data)), out).has_value());
  EXPECT_EQ(out, data);
}

TEST(Compressed, MoreThanAClusterIsCut) {
  DecompressorPool pool;
  const auto data = sample(2 * kCluster);
  for (auto type : {CompressionType::kDeflate, CompressionType::kZstd}) {
    const auto stream = type == CompressionType::kDeflate ? deflated(data, -12) : zstandard(data);
    std::vector<uint8_t> out(kCluster);
    ASSERT_TRUE(pool.decompress(type, padded(stream), out).has_value());
    EXPECT_TRUE(std::equal(out.begin(), out.end(), data.begin()));
  }
}

TEST(Compressed, LessThanAClusterOrGarbageIsAnError) {
  DecompressorPool pool;
  const auto data = sample(kCluster / 2);
  std::vector<uint8_t> out(kCluster);
  for (auto type : {CompressionType::kDeflate, CompressionType::kZstd}) {
    const auto stream = type == CompressionType::kDeflate ? deflated(data, -12) : zstandard(data);
    for (const auto& bad : {padded(stream), sample(4096), std::vector<uint8_t>(512, 0xff),
                            std::vector<uint8_t>(stream.begin(), stream.begin() + 100)}) {
      const auto done = pool.decompress(type, bad, out);
      ASSERT_FALSE(done.has_value());
      EXPECT_EQ(done.error().code(), EIO);
    }
    // The pool's state is as good as new afterwards.
    const auto whole = sample(kCluster);
    ASSERT_TRUE(pool.decompress(type,
                                padded(type == CompressionType::kDeflate ? deflated(whole, -12)
                                                                         : zstandard(whole)),
                                out)
                    .has_value());
    EXPECT_EQ(out, whole);
  }
}

TEST(Compressed, ManyThreads) {
  DecompressorPool pool;
  std::vector<std::thread> threads;
  for (unsigned seed = 0; seed < 4; ++seed) {
    threads.emplace_back([&pool, seed] {
      const auto data = sample(kCluster, seed);
      const auto stream = padded(deflated(data, -12));
      for (int i = 0; i < 20; ++i) {
        std::vector<uint8_t> out(kCluster);
        ASSERT_TRUE(pool.decompress(CompressionType::kDeflate, stream, out).has_value());
        ASSERT_EQ(out, data);
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

}  // namespace
}  // namespace platter::format::qcow2
