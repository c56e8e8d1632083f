// Published vectors: AES (FIPS 197, SP 800-38A) and XTS (IEEE 1619), Twofish (its submission to
// AES), CAST5 (RFC 2144).
#include "crypto/block_cipher.h"

#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

namespace platter::crypto {
namespace {

std::vector<uint8_t> from_hex(std::string_view text) {
  std::vector<uint8_t> bytes;
  for (size_t i = 0; i + 1 < text.size(); i += 2)
    bytes.push_back(static_cast<uint8_t>(std::stoul(std::string(text.substr(i, 2)), nullptr, 16)));
  return bytes;
}

struct Vector {
  CipherAlgorithm algorithm;
  CipherMode mode;
  std::string_view key;
  std::string_view iv;
  std::string_view plain;
  std::string_view encrypted;
};

constexpr Vector kVectors[] = {
    {CipherAlgorithm::kAes128, CipherMode::kEcb, "000102030405060708090a0b0c0d0e0f", "",
     "00112233445566778899aabbccddeeff", "69c4e0d86a7b0430d8cdb78070b4c55a"},
    {CipherAlgorithm::kAes192, CipherMode::kEcb, "000102030405060708090a0b0c0d0e0f1011121314151617",
     "", "00112233445566778899aabbccddeeff", "dda97ca4864cdfe06eaf70a0ec0d7191"},
    {CipherAlgorithm::kAes256, CipherMode::kCbc,
     "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
     "000102030405060708090a0b0c0d0e0f", "6bc1bee22e409f96e93d7e117393172a",
     "f58c4c04d6e5f1ba779eabfb5f7bfbd6"},
    {CipherAlgorithm::kAes256, CipherMode::kCtr,
     "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
     "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff", "6bc1bee22e409f96e93d7e117393172a",
     "601ec313775789a5b7a7f504bbf3d228"},
    {CipherAlgorithm::kAes128, CipherMode::kXts,
     "1111111111111111111111111111111122222222222222222222222222222222",
     "33333333330000000000000000000000",
     "4444444444444444444444444444444444444444444444444444444444444444",
     "c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0"},
    {CipherAlgorithm::kCast5128, CipherMode::kEcb, "0123456712345678234567893456789a", "",
     "0123456789abcdef", "238b4fe5847e44b2"},
    {CipherAlgorithm::kTwofish128, CipherMode::kEcb, "00000000000000000000000000000000", "",
     "00000000000000000000000000000000", "9f589f5cf6122c32b6bfec2f2ae8c35a"},
    {CipherAlgorithm::kTwofish192, CipherMode::kEcb,
     "0123456789abcdeffedcba98765432100011223344556677", "", "00000000000000000000000000000000",
     "cfd1d2e5a9be9cdf501f13b892bd2248"},
    {CipherAlgorithm::kTwofish256, CipherMode::kEcb,
     "0123456789abcdeffedcba987654321000112233445566778899aabbccddeeff", "",
     "00000000000000000000000000000000", "37527be0052334b89f0cfccae87cfa20"},
};

TEST(BlockCipher, PublishedVectors) {
  for (const Vector& vector : kVectors) {
    SCOPED_TRACE(name_of(vector.algorithm));
    SCOPED_TRACE(name_of(vector.mode));
    auto cipher = make_block_cipher(vector.algorithm, vector.mode, from_hex(vector.key));
    ASSERT_TRUE(cipher) << cipher.error().message();
    const auto iv = from_hex(vector.iv);
    const auto plain = from_hex(vector.plain);
    std::vector<uint8_t> out(plain.size());
    (*cipher)->encrypt(iv.data(), plain.data(), out.data(), out.size());
    EXPECT_EQ(out, from_hex(vector.encrypted));
    (*cipher)->clone()->decrypt(iv.data(), out.data(), out.data(), out.size());
    EXPECT_EQ(out, plain);
  }
}

TEST(BlockCipher, EveryCipherInEveryModeComesBackAlsoInPlace) {
  for (int i = 0; i <= static_cast<int>(CipherAlgorithm::kTwofish256); ++i) {
    for (const CipherMode mode :
         {CipherMode::kEcb, CipherMode::kCbc, CipherMode::kXts, CipherMode::kCtr}) {
      const CipherSpec spec = {.algorithm = static_cast<CipherAlgorithm>(i), .mode = mode};
      SCOPED_TRACE(name_of(spec.algorithm));
      SCOPED_TRACE(name_of(mode));
      if (!check_spec(spec)) {
        EXPECT_EQ(spec.algorithm, CipherAlgorithm::kCast5128);
        continue;
      }
      std::vector<uint8_t> key(key_bytes(spec));
      std::iota(key.begin(), key.end(), uint8_t{1});
      auto cipher = make_block_cipher(spec.algorithm, mode, key);
      ASSERT_TRUE(cipher) << cipher.error().message();
      const std::vector<uint8_t> iv(kMaxBlockBytes, 7);
      std::vector<uint8_t> plain(512);
      std::iota(plain.begin(), plain.end(), uint8_t{0});
      std::vector<uint8_t> apart(plain.size());
      std::vector<uint8_t> in_place = plain;
      (*cipher)->encrypt(iv.data(), plain.data(), apart.data(), apart.size());
      (*cipher)->encrypt(iv.data(), in_place.data(), in_place.data(), in_place.size());
      EXPECT_EQ(apart, in_place);
      EXPECT_NE(apart, plain);
      (*cipher)->decrypt(iv.data(), in_place.data(), in_place.data(), in_place.size());
      EXPECT_EQ(in_place, plain);
    }
  }
}

TEST(BlockCipher, XtsRefusesEqualHalves) {
  const std::vector<uint8_t> key(64, 3);
  EXPECT_FALSE(make_block_cipher(CipherAlgorithm::kAes256, CipherMode::kXts, key).has_value());
}

}  // namespace
}  // namespace platter::crypto
