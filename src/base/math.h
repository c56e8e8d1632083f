// Checked and aligning arithmetic. Everything that comes from outside (an image, an option, a
// peer) is added and multiplied with the checked forms.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <optional>

namespace platter::base {

template <std::integral T>
constexpr std::optional<T> checked_add(T a, T b) {
  T sum;
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}

template <std::integral T>
constexpr std::optional<T> checked_mul(T a, T b) {
  T product;
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

template <std::unsigned_integral T>
constexpr bool is_power_of_two(T value) {
  return std::has_single_bit(value);
}

// `alignment` is a power of two.
constexpr uint64_t align_down(uint64_t value, uint64_t alignment) {
  return value & ~(alignment - 1);
}
constexpr bool is_aligned(uint64_t value, uint64_t alignment) {
  return (value & (alignment - 1)) == 0;
}
// The caller has checked that value + alignment - 1 does not overflow (checked_align_up does).
constexpr uint64_t align_up(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) & ~(alignment - 1);
}
constexpr std::optional<uint64_t> checked_align_up(uint64_t value, uint64_t alignment) {
  auto sum = checked_add(value, alignment - 1);
  if (!sum) return std::nullopt;
  return align_down(*sum, alignment);
}
constexpr uint64_t divide_round_up(uint64_t value, uint64_t divisor) {
  return value / divisor + (value % divisor != 0);
}
// Whether [offset, offset + length) lies within [0, limit), without overflow.
constexpr bool range_within(uint64_t offset, uint64_t length, uint64_t limit) {
  return offset <= limit && length <= limit - offset;
}

}  // namespace platter::base
