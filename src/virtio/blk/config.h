// The configuration space of a virtio-blk device, and what it offers (virtio 1.3, 5.2.3 and 5.2.4).
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "virtio/blk/properties.h"

namespace platter::virtio::blk {

// Feature bits of the device type.
inline constexpr uint64_t kSegMax = 1U << 2;
inline constexpr uint64_t kGeometry = 1U << 4;
inline constexpr uint64_t kReadOnly = 1U << 5;
inline constexpr uint64_t kBlockSize = 1U << 6;
inline constexpr uint64_t kFlush = 1U << 9;
inline constexpr uint64_t kTopology = 1U << 10;
inline constexpr uint64_t kConfigWce = 1U << 11;
inline constexpr uint64_t kMultiQueue = 1U << 12;
inline constexpr uint64_t kDiscard = 1U << 13;
inline constexpr uint64_t kWriteZeroes = 1U << 14;
inline constexpr uint64_t kZoned = 1U << 17;

// Places in the configuration space that others than this file name.
inline constexpr size_t kWceOffset = 32;
inline constexpr size_t kZonedOffset = 72;
inline constexpr size_t kMaxConfigBytes = 96;

// What a device with these properties offers of its own features, with its write cache so.
uint64_t offered_features(const Properties& properties, bool write_cache);

// How much of the space there is: it ends after the last field that a negotiable feature has.
size_t config_bytes(uint64_t offered);

// The whole space, of a disk of so many bytes. A part of a sector at its end is not part of it.
std::array<uint8_t, kMaxConfigBytes> config_space(const Properties& properties, uint64_t disk_bytes,
                                                  bool write_cache);

// The one that is told for a disk of so many sectors where the user names none.
DiskGeometry guess_geometry(uint64_t sectors);

}  // namespace platter::virtio::blk
