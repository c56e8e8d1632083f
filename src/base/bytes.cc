#include "base/bytes.h"

namespace platter::base {
namespace {

// Early outs are taken a block at a time: a block is what one cache-friendly vector loop handles
// before it looks at what it has gathered.
constexpr size_t kBlock = 256;

bool block_is_zero(const uint8_t* data) {
  uint64_t gathered = 0;
  for (size_t i = 0; i < kBlock; i += sizeof(uint64_t)) {
    uint64_t word;
    std::memcpy(&word, data + i, sizeof word);
    gathered |= word;
  }
  return gathered == 0;
}

}  // namespace

bool is_zero(std::span<const uint8_t> bytes) {
  const uint8_t* data = bytes.data();
  size_t left = bytes.size();
  for (; left >= kBlock; data += kBlock, left -= kBlock) {
    if (!block_is_zero(data)) return false;
  }
  uint8_t gathered = 0;
  for (size_t i = 0; i < left; ++i) gathered |= data[i];
  return gathered == 0;
}

}  // namespace platter::base
