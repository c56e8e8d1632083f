// Fields of a ring, which the other side reads and writes at the same time. Little-endian (virtio
// 1.2, 1.4). For this room alone.
#pragma once

#include <cstdint>
#include <utility>

#include "base/bytes.h"
#include "virtio/chain.h"

namespace platter::virtio {

template <typename T>
T load_relaxed(const uint8_t* at) {
  return base::from_little_endian(
      __atomic_load_n(reinterpret_cast<const T*>(at), __ATOMIC_RELAXED));
}
template <typename T>
T load_acquire(const uint8_t* at) {
  return base::from_little_endian(
      __atomic_load_n(reinterpret_cast<const T*>(at), __ATOMIC_ACQUIRE));
}
template <typename T>
void store_relaxed(uint8_t* at, T value) {
  __atomic_store_n(reinterpret_cast<T*>(at), base::from_little_endian(value), __ATOMIC_RELAXED);
}
template <typename T>
void store_release(uint8_t* at, T value) {
  __atomic_store_n(reinterpret_cast<T*>(at), base::from_little_endian(value), __ATOMIC_RELEASE);
}

// What was stored before is seen before what is loaded after.
inline void full_fence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

// The only look at a descriptor. A table of indirect ones may lie at any address.
inline std::pair<uint64_t, uint64_t> copy_descriptor_words(const uint8_t* at) {
  if (reinterpret_cast<uintptr_t>(at) % sizeof(uint64_t) == 0)
    return {load_relaxed<uint64_t>(at), load_relaxed<uint64_t>(at + sizeof(uint64_t))};
  uint8_t bytes[kDescriptorBytes];
  for (size_t i = 0; i < kDescriptorBytes; ++i) bytes[i] = load_relaxed<uint8_t>(at + i);
  return {base::load_little<uint64_t>(bytes, 0),
          base::load_little<uint64_t>(bytes, sizeof(uint64_t))};
}
inline Descriptor split_descriptor(const uint8_t* at) {
  const auto [address, rest] = copy_descriptor_words(at);
  return {.address = address,
          .bytes = static_cast<uint32_t>(rest),
          .flags = static_cast<uint16_t>(rest >> 32),
          .link = static_cast<uint16_t>(rest >> 48)};
}
inline Descriptor packed_descriptor(const uint8_t* at) {
  const auto [address, rest] = copy_descriptor_words(at);
  return {.address = address,
          .bytes = static_cast<uint32_t>(rest),
          .flags = static_cast<uint16_t>(rest >> 48),
          .link = static_cast<uint16_t>(rest >> 32)};
}

}  // namespace platter::virtio
