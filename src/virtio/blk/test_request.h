// Requests of a virtio-blk driver in guest memory, one at a time: for unit tests.
#pragma once

#include "base/bytes.h"
#include "virtio/test_driver.h"

namespace platter::virtio::test {

inline constexpr uint64_t kHeader = Guest::kData;
inline constexpr uint64_t kStatus = Guest::kData + 64;
inline constexpr uint64_t kPayload = Guest::kData + 4096;
inline constexpr uint8_t kUntouched = 0xee;

enum Type : uint32_t {
  kIn = 0,
  kOut = 1,
  kScsi = 2,
  kFlushType = 4,
  kGetIdType = 8,
  kDiscardType = 11,
  kWriteZeroesType = 13,
  kSecureErase = 14,
  kAppend = 15,
  kReport = 16,
  kOpen = 18,
  kClose = 20,
  kFinish = 22,
  kReset = 24,
  kResetAll = 26,
};

inline void put_header(Guest& guest, uint64_t address, uint32_t type, uint64_t sector) {
  const std::span<uint8_t> header(guest.at(address), 16);
  base::store_little<uint32_t>(header, 0, type);
  base::store_little<uint32_t>(header, 4, 0);
  base::store_little<uint64_t>(header, 8, sector);
}

}  // namespace platter::virtio::test
