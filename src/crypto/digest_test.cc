#include "crypto/digest.h"

#include <gtest/gtest.h>

#include <string>

#include "base/json.h"
#include "crypto/anti_forensic.h"
#include "fmt/format.h"

namespace platter::crypto {
namespace {

std::string hex(std::span<const uint8_t> bytes) {
  std::string text;
  for (const uint8_t byte : bytes) text += fmt::format("{:02x}", byte);
  return text;
}
std::span<const uint8_t> bytes_of(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// RFC 6070, and the same with SHA-256 (RFC 7914, section 11).
TEST(Digest, DerivesPublishedKeys) {
  EXPECT_EQ(hex(derive_key(HashAlgorithm::kSha1, bytes_of("password"), bytes_of("salt"), 4096, 20)
                    .span()),
            "4b007901b765489abead49d926f721d065a429c1");
  EXPECT_EQ(
      hex(derive_key(HashAlgorithm::kSha256, bytes_of("passwd"), bytes_of("salt"), 1, 64).span()),
      "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc"
      "49ca9cccf179b645991664b39d77ef317c71b845b1e30bd509112041d3a19783");
}

TEST(Digest, HashesOfNothing) {
  const auto digest = [](HashAlgorithm algorithm) {
    base::SecretBytes out(digest_bytes(algorithm));
    hash(algorithm, {}, out.span());
    return hex(out.span());
  };
  EXPECT_EQ(digest(HashAlgorithm::kMd5), "d41d8cd98f00b204e9800998ecf8427e");
  EXPECT_EQ(digest(HashAlgorithm::kSha1), "da39a3ee5e6b4b0d3255bfef95601890afd80709");
  EXPECT_EQ(digest(HashAlgorithm::kSha224),
            "d14a028c2a3a2bc9476102bb288234c415a2b01f828ea62ac5b3e42f");
  EXPECT_EQ(digest(HashAlgorithm::kRipemd160), "9c1185a5c5e9fc54612808977ee8f548b2258d31");
}

TEST(AntiForensic, WhatIsSplitIsMergedAndNoStripeCanBeMissing) {
  base::SecretBytes key(48);
  fill_random(key.span());
  for (const HashAlgorithm algorithm : {HashAlgorithm::kSha1, HashAlgorithm::kSha256}) {
    base::SecretBytes material = split_key(algorithm, key.span(), 50);
    ASSERT_EQ(material.size(), 48u * 50);
    EXPECT_EQ(hex(merge_key(algorithm, material.span(), 48).span()), hex(key.span()));
    material.data()[7 * 48 + 3] ^= 1;
    EXPECT_NE(hex(merge_key(algorithm, material.span(), 48).span()), hex(key.span()));
  }
}

}  // namespace
}  // namespace platter::crypto
