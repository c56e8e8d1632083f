// DeviceState: all that a virtio-blk device knows of its driver while no queue runs, as bytes:
// saved by one device, another one that looks the same goes on from it and the driver notices
// nothing.
//
// The bytes; numbers are little-endian:
//
//     0  magic "PltrVBlk"
//     8  version, 32 bits: 1, or 2 where the configuration space has more than 60 bytes
//    12  number of queues, 32 bits
//    16  features that were negotiated, 64 bits
//    24  status
//    25  1: the write cache is on
//    26  zero, 2 bytes
//    28  configuration space, its first 60 bytes
//    88  serial number, kMaxSerialBytes, filled up with zeroes
//   108  zero, 4 bytes
//   112  version 2: the rest of the configuration space, 36 bytes
//        of each queue 8 bytes: its size (0: not set up), 1 if it has a position, and the position:
//        available, used; each 16 bits
//
// What follows from the disk, and has to be equal (the configuration space, the serial number), is
// there to be compared.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "platter/error.h"
#include "virtio/blk/config.h"
#include "virtio/blk/properties.h"
#include "virtio/queue.h"

namespace platter::virtio::blk {

struct DeviceState {
  static constexpr uint32_t kVersion = 1;
  static constexpr uint32_t kLongVersion = 2;
  static constexpr size_t kShortConfigBytes = 60;
  static constexpr size_t kHeaderBytes = 112;
  static constexpr size_t kLongHeaderBytes = kHeaderBytes + kMaxConfigBytes - kShortConfigBytes;
  static constexpr size_t kQueueBytes = 8;
  static constexpr size_t kMaxBytes = kLongHeaderBytes + kMaxQueues * kQueueBytes;

  struct Queue {
    uint16_t size = 0;
    // Where it goes on; of a split ring, whose used index stands in the ring, `used` is 0.
    std::optional<QueueState> position = {};
    bool operator==(const Queue&) const = default;
  };

  uint64_t features = 0;
  uint8_t status = 0;
  bool write_cache = false;
  std::array<uint8_t, kMaxConfigBytes> config{};
  std::string serial = {};
  std::vector<Queue> queues = {};

  std::vector<uint8_t> encode() const;
  // EINVAL: another version, or no such state.
  static Result<DeviceState> parse(std::span<const uint8_t> bytes);
  bool operator==(const DeviceState&) const = default;
};

}  // namespace platter::virtio::blk
