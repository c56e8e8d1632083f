// Feature bits that every virtio device shares (virtio 1.2, section 6).
#pragma once

#include <cstdint>

namespace platter::virtio {

inline constexpr uint64_t kNotifyOnEmpty = uint64_t{1} << 24;
inline constexpr uint64_t kAnyLayout = uint64_t{1} << 27;
inline constexpr uint64_t kIndirectDescriptors = uint64_t{1} << 28;
inline constexpr uint64_t kEventIndex = uint64_t{1} << 29;
inline constexpr uint64_t kVersion1 = uint64_t{1} << 32;
inline constexpr uint64_t kAccessPlatform = uint64_t{1} << 33;
inline constexpr uint64_t kPackedRing = uint64_t{1} << 34;
inline constexpr uint64_t kInOrder = uint64_t{1} << 35;
inline constexpr uint64_t kRingReset = uint64_t{1} << 40;  // not offered: docs/architecture.md

}  // namespace platter::virtio
