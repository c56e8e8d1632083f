#include "crypto/anti_forensic.h"

#include <algorithm>
#include <array>

#include "base/assert.h"
#include "base/bytes.h"
#include "crypto/digest.h"

namespace platter::crypto {
namespace {

void add(std::span<uint8_t> sum, std::span<const uint8_t> stripe) {
  for (size_t i = 0; i < sum.size(); ++i) sum[i] ^= stripe[i];
}

// Hashes each piece of a digest's length together with its number.
void diffuse(HashAlgorithm algorithm, std::span<uint8_t> block) {
  const size_t piece_bytes = digest_bytes(algorithm);
  base::SecretBytes digest(piece_bytes);
  for (uint32_t number = 0; !block.empty(); ++number) {
    const std::span<uint8_t> piece = block.first(std::min(piece_bytes, block.size()));
    std::array<uint8_t, 4> prefix;
    base::store_big<uint32_t>(prefix, 0, number);
    const std::array<std::span<const uint8_t>, 2> parts = {prefix, piece};
    hash(algorithm, parts, digest.span());
    std::ranges::copy(digest.span().first(piece.size()), piece.begin());
    block = block.subspan(piece.size());
  }
}

}  // namespace

base::SecretBytes split_key(HashAlgorithm algorithm, std::span<const uint8_t> key,
                            uint32_t stripes) {
  PLATTER_ASSERT(stripes > 0);
  base::SecretBytes material(key.size() * stripes);
  base::SecretBytes sum(key.size());
  fill_random(material.span().first(key.size() * (stripes - 1)));
  for (uint32_t i = 0; i + 1 < stripes; ++i) {
    add(sum.span(), material.span().subspan(i * key.size(), key.size()));
    diffuse(algorithm, sum.span());
  }
  const auto last = material.span().last(key.size());
  std::ranges::copy(key, last.begin());
  add(last, sum.span());
  return material;
}

base::SecretBytes merge_key(HashAlgorithm algorithm, std::span<const uint8_t> material,
                            size_t key_bytes) {
  PLATTER_ASSERT(key_bytes > 0 && material.size() >= key_bytes && material.size() % key_bytes == 0);
  base::SecretBytes key(key_bytes);
  for (size_t at = 0; at < material.size(); at += key_bytes) {
    if (at != 0) diffuse(algorithm, key.span());
    add(key.span(), material.subspan(at, key_bytes));
  }
  return key;
}

}  // namespace platter::crypto
