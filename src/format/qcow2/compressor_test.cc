#include "format/qcow2/compressor.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <random>
#include <thread>

#include "format/qcow2/compressed.h"

namespace platter::format::qcow2 {
namespace {

constexpr size_t kCluster = 65536;

// Words from a small list: what a person's file looks like to a compressor, with repetitions at
// every distance.
std::vector<uint8_t> text(uint64_t seed, size_t length) {
  std::mt19937_64 random(seed);
  std::vector<std::string> words(4000);
  for (std::string& word : words) {
    for (uint64_t left = 2 + random() % 9; left != 0; --left)
      word += static_cast<char>('a' + random() % 26);
  }
  std::vector<uint8_t> bytes;
  while (bytes.size() < length) {
    const std::string& word = words[random() % words.size()];
    bytes.insert(bytes.end(), word.begin(), word.end());
    bytes.push_back(' ');
  }
  bytes.resize(length);
  return bytes;
}

std::vector<uint8_t> noise(size_t length) {
  std::mt19937_64 random(7);
  std::vector<uint8_t> bytes(length);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  return bytes;
}

TEST(Compressor, what_it_writes_comes_back) {
  CompressorPool compressors;
  DecompressorPool decompressors;
  for (auto type : {CompressionType::kDeflate, CompressionType::kZstd}) {
    for (size_t cluster : {size_t{512}, size_t{4096}, kCluster, size_t{2} << 20}) {
      for (const auto& in : {text(cluster, cluster), std::vector<uint8_t>(cluster, 0)}) {
        std::vector<uint8_t> out(cluster), back(cluster);
        const size_t length = compressors.compress(type, in, out);
        ASSERT_GT(length, 0u);
        ASSERT_LE(length, out.size());
        // To the end of its last sector, where other streams begin.
        std::fill(out.begin() + static_cast<ptrdiff_t>(length), out.end(), 0xff);
        ASSERT_TRUE(decompressors.decompress(type, out, back).has_value());
        EXPECT_EQ(back, in);
      }
    }
  }
}

TEST(Compressor, deflate_keeps_to_a_window_of_4_kib) {
  CompressorPool compressors;
  const auto in = text(3, kCluster);
  std::vector<uint8_t> out(kCluster), back(kCluster);
  const size_t length = compressors.compress(CompressionType::kDeflate, in, out);
  ASSERT_GT(length, 0u);
  z_stream stream{};
  ASSERT_EQ(inflateInit2(&stream, -12), Z_OK);
  stream.next_in = out.data();
  stream.avail_in = static_cast<uInt>(length);
  stream.next_out = back.data();
  stream.avail_out = kCluster;
  EXPECT_EQ(inflate(&stream, Z_FINISH), Z_STREAM_END) << (stream.msg != nullptr ? stream.msg : "");
  EXPECT_EQ(stream.avail_in, 0u);
  inflateEnd(&stream);
  EXPECT_EQ(back, in);
}

TEST(Compressor, says_what_does_not_fit) {
  CompressorPool compressors;
  const auto in = noise(kCluster);
  std::vector<uint8_t> out(kCluster - kCluster / 64);
  EXPECT_EQ(compressors.compress(CompressionType::kDeflate, in, out), 0u);
  EXPECT_EQ(compressors.compress(CompressionType::kZstd, in, out), 0u);
  // And is none the worse for it.
  EXPECT_GT(compressors.compress(CompressionType::kDeflate, text(1, kCluster), out), 0u);
  EXPECT_GT(compressors.compress(CompressionType::kZstd, text(1, kCluster), out), 0u);
}

TEST(Compressor, threads_do_not_share_state) {
  CompressorPool compressors;
  DecompressorPool decompressors;
  std::vector<std::thread> threads;
  std::atomic<unsigned> wrong = 0;
  for (unsigned thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      for (unsigned round = 0; round < 20; ++round) {
        const auto type = round % 2 != 0 ? CompressionType::kDeflate : CompressionType::kZstd;
        const auto in = text(thread * 100 + round, kCluster);
        std::vector<uint8_t> out(kCluster), back(kCluster);
        compressors.compress(type, in, out);
        if (!decompressors.decompress(type, out, back) || back != in) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0u);
}

}  // namespace
}  // namespace platter::format::qcow2
