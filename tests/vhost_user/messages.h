// The messages of the vhost-user protocol, as its specification numbers them. They stand here a
// second time, and not in what is tested, so that a wrong number there meets the right one.
#pragma once

#include <cstdint>

namespace platter::front_end {

enum class Request : uint32_t {
  kGetFeatures = 1,
  kSetFeatures = 2,
  kSetOwner = 3,
  kResetOwner = 4,
  kSetMemTable = 5,
  kSetLogBase = 6,
  kSetLogFd = 7,
  kSetVringNum = 8,
  kSetVringAddr = 9,
  kSetVringBase = 10,
  kGetVringBase = 11,
  kSetVringKick = 12,
  kSetVringCall = 13,
  kSetVringErr = 14,
  kGetProtocolFeatures = 15,
  kSetProtocolFeatures = 16,
  kGetQueueNum = 17,
  kSetVringEnable = 18,
  kSetBackendReqFd = 21,
  kGetConfig = 24,
  kSetConfig = 25,
  kGetInflightFd = 31,
  kSetInflightFd = 32,
  kResetDevice = 34,
  kGetMaxMemSlots = 36,
  kAddMemReg = 37,
  kRemMemReg = 38,
  kSetStatus = 39,
  kGetStatus = 40,
  kSetDeviceStateFd = 42,
  kCheckDeviceState = 43,
};

// What a back-end sends on the connection that it was given for it.
enum class BackendRequest : uint32_t { kConfigChange = 2 };

inline constexpr uint32_t kVersion = 1;
inline constexpr uint32_t kVersionMask = 3;
inline constexpr uint32_t kReply = 1U << 2;
inline constexpr uint32_t kNeedReply = 1U << 3;

// Of the feature bits: that there are protocol features, and that writes to memory are logged.
inline constexpr uint64_t kProtocolFeatures = uint64_t{1} << 30;
inline constexpr uint64_t kLogAll = uint64_t{1} << 26;

namespace protocol_feature {
inline constexpr uint64_t kMultiQueue = 1U << 0;
inline constexpr uint64_t kLogMemory = 1U << 1;
inline constexpr uint64_t kReplyAck = 1U << 3;
inline constexpr uint64_t kBackendRequests = 1U << 5;
inline constexpr uint64_t kConfig = 1U << 9;
inline constexpr uint64_t kInflight = 1U << 12;
inline constexpr uint64_t kResetDevice = 1U << 13;
inline constexpr uint64_t kConfigureMemSlots = 1U << 15;
inline constexpr uint64_t kStatus = 1U << 16;
inline constexpr uint64_t kDeviceState = 1U << 19;
}  // namespace protocol_feature

// Beside the number of a queue, where a message could have had a descriptor and has none.
inline constexpr uint64_t kNoDescriptor = 1U << 8;
inline constexpr uint32_t kVringLog = 1;
// Of a device's state: where it goes, when, and that it goes through the front-end's own pipe.
inline constexpr uint32_t kSaveState = 0;
inline constexpr uint32_t kLoadState = 1;
inline constexpr uint32_t kWhileStopped = 0;
inline constexpr uint64_t kOwnPipe = 1U << 8;
// What a bit of the log stands for.
inline constexpr uint64_t kLogPage = 4096;

}  // namespace platter::front_end
