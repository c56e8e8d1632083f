// Types of requests and statuses of a virtio-blk device, as the specification has them (virtio 1.3,
// 5.2.6). Tests do not take the device's own: those are what they judge.
#pragma once

#include <cstdint>

namespace platter::support::virtio_blk {

inline constexpr uint32_t kRead = 0;
inline constexpr uint32_t kWrite = 1;
inline constexpr uint32_t kFlush = 4;
inline constexpr uint32_t kGetId = 8;
inline constexpr uint32_t kDiscard = 11;
inline constexpr uint32_t kWriteZeroes = 13;
inline constexpr uint32_t kZoneAppend = 15;
inline constexpr uint32_t kZoneReport = 16;
inline constexpr uint32_t kZoneOpen = 18;
inline constexpr uint32_t kZoneClose = 20;
inline constexpr uint32_t kZoneFinish = 22;
inline constexpr uint32_t kZoneReset = 24;
inline constexpr uint32_t kZoneResetAll = 26;

inline constexpr uint8_t kOk = 0;
inline constexpr uint8_t kIoError = 1;
inline constexpr uint8_t kUnsupported = 2;
inline constexpr uint8_t kZoneInvalidCommand = 3;
inline constexpr uint8_t kZoneUnalignedPointer = 4;
inline constexpr uint8_t kZoneOpenResource = 5;
inline constexpr uint8_t kZoneActiveResource = 6;

}  // namespace platter::support::virtio_blk
