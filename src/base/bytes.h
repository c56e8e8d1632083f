// Fields of on-disk and on-wire structures, read and written byte by byte: nothing is cast onto a
// packed struct. Offsets into a span are checked by the caller's one size check at the top of a
// parser; the accessors assert it.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <span>

#include "base/assert.h"

namespace platter::base {

template <std::unsigned_integral T>
constexpr T from_big_endian(T value) {
  return std::endian::native == std::endian::little ? std::byteswap(value) : value;
}
template <std::unsigned_integral T>
constexpr T from_little_endian(T value) {
  return std::endian::native == std::endian::little ? value : std::byteswap(value);
}

template <std::unsigned_integral T>
T load_big(std::span<const uint8_t> bytes, size_t offset = 0) {
  PLATTER_ASSERT(offset <= bytes.size() && sizeof(T) <= bytes.size() - offset);
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return from_big_endian(value);
}
template <std::unsigned_integral T>
T load_little(std::span<const uint8_t> bytes, size_t offset = 0) {
  PLATTER_ASSERT(offset <= bytes.size() && sizeof(T) <= bytes.size() - offset);
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return from_little_endian(value);
}
template <std::unsigned_integral T>
void store_big(std::span<uint8_t> bytes, size_t offset, T value) {
  PLATTER_ASSERT(offset <= bytes.size() && sizeof(T) <= bytes.size() - offset);
  value = from_big_endian(value);
  std::memcpy(bytes.data() + offset, &value, sizeof value);
}
template <std::unsigned_integral T>
void store_little(std::span<uint8_t> bytes, size_t offset, T value) {
  PLATTER_ASSERT(offset <= bytes.size() && sizeof(T) <= bytes.size() - offset);
  value = from_little_endian(value);
  std::memcpy(bytes.data() + offset, &value, sizeof value);
}

// True if every byte is zero. As fast as memory: vectorised, any alignment and length.
bool is_zero(std::span<const uint8_t> bytes);

}  // namespace platter::base
