#include "crypto/sector_cipher.h"

#include <gtest/gtest.h>

#include <numeric>
#include <thread>
#include <vector>

#include "crypto/digest.h"

namespace platter::crypto {
namespace {

std::unique_ptr<SectorCipher> make_cipher(const CipherSpec& spec) {
  std::vector<uint8_t> key(key_bytes(spec));
  std::iota(key.begin(), key.end(), uint8_t{9});
  auto cipher = SectorCipher::create(spec, key);
  EXPECT_TRUE(cipher.has_value());
  return std::move(*cipher);
}

std::vector<uint8_t> sample(size_t size) {
  std::vector<uint8_t> bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<uint8_t>(i * 31 + i / 512);
  return bytes;
}

TEST(SectorCipher, PiecesOfEveryShapeAreOneRun) {
  const auto cipher = make_cipher({});
  std::vector<uint8_t> plain = sample(8 * kSectorBytes);
  std::vector<uint8_t> whole(plain.size());
  cipher->encrypt(5, io::BufferList(plain), whole);

  const size_t cuts[] = {1, 511, 512, 513, 700, 1024, 1500, 1501, 3000, 4000, 4096};
  std::vector<iovec> pieces;
  size_t begin = 0;
  for (const size_t end : cuts) {
    pieces.push_back({plain.data() + begin, end - begin});
    begin = end;
  }
  const io::BufferList list{std::span<const iovec>(pieces)};
  std::vector<uint8_t> apart(plain.size());
  const std::vector<uint8_t> before = plain;
  cipher->encrypt(5, list, apart);
  EXPECT_EQ(apart, whole);
  EXPECT_EQ(plain, before);

  plain = whole;
  cipher->decrypt(5, list);
  EXPECT_EQ(plain, before);
}

TEST(SectorCipher, EachSectorStandsAlone) {
  const CipherSpec specs[] = {
      {},
      {.mode = CipherMode::kCbc,
       .iv_generator = IvGenerator::kEssiv,
       .iv_hash = HashAlgorithm::kSha256},
      {.algorithm = CipherAlgorithm::kSerpent192, .iv_generator = IvGenerator::kPlain},
      {.algorithm = CipherAlgorithm::kCast5128, .mode = CipherMode::kCbc},
  };
  for (const CipherSpec& spec : specs) {
    SCOPED_TRACE(mode_text(spec));
    ASSERT_TRUE(check_spec(spec));
    const auto cipher = make_cipher(spec);
    std::vector<uint8_t> bytes(4 * kSectorBytes);  // equal sectors
    cipher->encrypt(10, bytes);
    const auto sector = [&bytes](size_t i) {
      return std::vector<uint8_t>(bytes.begin() + static_cast<ptrdiff_t>(i * kSectorBytes),
                                  bytes.begin() + static_cast<ptrdiff_t>((i + 1) * kSectorBytes));
    };
    EXPECT_NE(sector(0), sector(1));
    std::vector<uint8_t> third = sector(2);
    cipher->decrypt(12, io::BufferList(third));
    EXPECT_EQ(third, std::vector<uint8_t>(kSectorBytes));
  }
}

TEST(SectorCipher, PlainCountsIn32Bits) {
  const auto cipher = make_cipher({.iv_generator = IvGenerator::kPlain});
  std::vector<uint8_t> low(kSectorBytes);
  std::vector<uint8_t> high(kSectorBytes);
  cipher->encrypt(3, low);
  cipher->encrypt((uint64_t{1} << 32) + 3, high);
  EXPECT_EQ(low, high);
  const auto wide = make_cipher({.iv_generator = IvGenerator::kPlain64});
  std::vector<uint8_t> other(kSectorBytes);
  wide->encrypt((uint64_t{1} << 32) + 3, other);
  EXPECT_NE(low, other);
}

TEST(SectorCipher, ManyThreadsShareOne) {
  const auto cipher = make_cipher({});
  const std::vector<uint8_t> plain = sample(64 * kSectorBytes);
  std::vector<std::thread> threads;
  std::atomic<unsigned> good{0};
  for (uint64_t number = 0; number < 40; ++number) {
    threads.emplace_back([&, number] {
      for (int round = 0; round < 20; ++round) {
        std::vector<uint8_t> bytes = plain;
        cipher->encrypt(number, bytes);
        cipher->decrypt(number, io::BufferList(bytes));
        if (bytes == plain) good.fetch_add(1);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(good.load(), 800u);
}

}  // namespace
}  // namespace platter::crypto
