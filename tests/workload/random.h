// A small seeded generator whose sequence is the same on every machine and library, so that a seed
// printed by a failing run reproduces it anywhere.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>

#include "base/assert.h"
#include "base/bytes.h"

namespace platter::workload {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    uint64_t value = (state_ += 0x9e3779b97f4a7c15);
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
    value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
    return value ^ (value >> 31);
  }
  // 0 <= value < bound.
  uint64_t below(uint64_t bound) {
    PLATTER_ASSERT(bound != 0);
    return next() % bound;
  }
  // first <= value <= last.
  uint64_t between(uint64_t first, uint64_t last) { return first + below(last - first + 1); }
  bool one_in(uint64_t n) { return below(n) == 0; }
  template <typename T>
  T pick(std::initializer_list<T> choices) {
    return choices.begin()[below(choices.size())];
  }
  // Every power of two up to `bound` is as likely as any other: small values are common.
  uint64_t log_uniform(uint64_t bound) {
    unsigned bits = 0;
    while (bits < 63 && (bound >> bits) != 0) ++bits;
    uint64_t top = uint64_t{1} << between(0, bits);
    return below(top < bound ? top : bound);
  }
  Random fork() { return Random(next()); }

 private:
  uint64_t state_;
};

// Bytes that tell which write they come from: a function of `stamp` and of their own position.
inline void fill_pattern(std::span<uint8_t> bytes, uint64_t stamp, uint64_t offset) {
  auto word_at = [stamp](uint64_t index) {
    uint64_t value = stamp ^ (index * 0x9e3779b97f4a7c15);
    value = (value ^ (value >> 32)) * 0xd6e8feb86659fd93;
    return value ^ (value >> 29);
  };
  for (size_t i = 0; i < bytes.size();) {
    uint64_t at = offset + i;
    uint64_t word = word_at(at / 8);
    if (at % 8 == 0 && bytes.size() - i >= 8) {
      base::store_little<uint64_t>(bytes, i, word);
      i += 8;
      continue;
    }
    do {
      bytes[i++] = static_cast<uint8_t>(word >> (8 * (at % 8)));
    } while (++at % 8 != 0 && i < bytes.size());
  }
}

}  // namespace platter::workload
