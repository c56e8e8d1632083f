// What front-end and back-end tell each other: vhost-user's messages (the vhost-user protocol,
// "Message Specification"), parsed once and field by field. Numbers are in the machine's own order.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "io/descriptor.h"
#include "platter/error.h"

namespace platter::vhost_user {

enum class Request : uint32_t {
  kGetFeatures = 1,
  kSetFeatures = 2,
  kSetOwner = 3,
  kResetOwner = 4,
  kSetMemoryTable = 5,
  kSetLogBase = 6,
  kSetLogEvent = 7,
  kSetVringSize = 8,
  kSetVringAddress = 9,
  kSetVringBase = 10,
  kGetVringBase = 11,
  kSetVringKick = 12,
  kSetVringCall = 13,
  kSetVringError = 14,
  kGetProtocolFeatures = 15,
  kSetProtocolFeatures = 16,
  kGetQueueCount = 17,
  kSetVringEnable = 18,
  kSetBackendChannel = 21,
  kGetConfig = 24,
  kSetConfig = 25,
  kGetInflight = 31,
  kSetInflight = 32,
  kResetDevice = 34,
  kGetMaxMemorySlots = 36,
  kAddMemoryRegion = 37,
  kRemoveMemoryRegion = 38,
  kSetStatus = 39,
  kGetStatus = 40,
  kSetDeviceState = 42,
  kCheckDeviceState = 43,
};
// Null: none of these.
const char* name_of(Request request);

// What the back-end asks, on a channel of its own.
enum class BackendRequest : uint32_t { kConfigChanged = 2 };

// Of the device's features; the front-end's own.
inline constexpr uint64_t kProtocolFeatures = uint64_t{1} << 30;
inline constexpr uint64_t kLogAll = uint64_t{1} << 26;

// Protocol features.
inline constexpr uint64_t kMultiQueue = uint64_t{1} << 0;
inline constexpr uint64_t kLogSharedMemory = uint64_t{1} << 1;
inline constexpr uint64_t kReplyAck = uint64_t{1} << 3;
inline constexpr uint64_t kBackendChannel = uint64_t{1} << 5;
inline constexpr uint64_t kConfig = uint64_t{1} << 9;
inline constexpr uint64_t kInflightSharedMemory = uint64_t{1} << 12;
inline constexpr uint64_t kResetDeviceFeature = uint64_t{1} << 13;
inline constexpr uint64_t kMemorySlots = uint64_t{1} << 15;
inline constexpr uint64_t kStatus = uint64_t{1} << 16;
inline constexpr uint64_t kDeviceState = uint64_t{1} << 19;

inline constexpr size_t kHeaderBytes = 12;
// More than any message needs: a memory table of 8 regions has 264, a configuration 268.
inline constexpr size_t kMaxPayloadBytes = 1024;
inline constexpr size_t kMaxDescriptors = 8;
inline constexpr uint32_t kMaxConfigBytes = 256;

struct Header {
  uint32_t request;
  uint32_t flags;
  uint32_t payload_bytes;

  // EPROTO: another version, a reply, or a payload that no message has.
  static Result<Header> parse(std::span<const uint8_t> bytes);
  bool wants_reply() const;
};

struct Message {
  Header header{};
  std::array<uint8_t, kMaxPayloadBytes> bytes{};
  std::vector<io::Descriptor> descriptors;

  Request request() const { return static_cast<Request>(header.request); }
  std::span<const uint8_t> payload() const { return {bytes.data(), header.payload_bytes}; }
};

// A reply to a message of that kind.
std::vector<uint8_t> encode_reply(uint32_t request, std::span<const uint8_t> payload);
std::vector<uint8_t> encode_request(BackendRequest request);

// ---- Payloads. EPROTO: it has another length, or says what cannot be.

Result<uint64_t> parse_number(std::span<const uint8_t> payload);
std::vector<uint8_t> encode_number(uint64_t number);

struct VringState {
  uint32_t index;
  uint32_t number;
};
Result<VringState> parse_vring_state(std::span<const uint8_t> payload);
std::vector<uint8_t> encode_vring_state(VringState state);

// Addresses are the front-end's own, but for the log's: there writes to the ring are noted.
struct VringAddress {
  static constexpr uint32_t kLogs = 1;  // of the flags

  uint32_t index;
  uint32_t flags;
  uint64_t descriptor_area;
  uint64_t device_area;
  uint64_t driver_area;
  uint64_t log;
};
Result<VringAddress> parse_vring_address(std::span<const uint8_t> payload);

// The number in SET_VRING_KICK, _CALL and _ERR.
struct VringDescriptor {
  uint32_t index;
  bool has_descriptor;
};
Result<VringDescriptor> parse_vring_descriptor(std::span<const uint8_t> payload);

struct RegionDescription {
  uint64_t guest_address;
  uint64_t bytes;
  uint64_t user_address;
  uint64_t file_offset;
};
Result<std::vector<RegionDescription>> parse_memory_table(std::span<const uint8_t> payload);
Result<RegionDescription> parse_memory_region(std::span<const uint8_t> payload);

struct LogArea {
  uint64_t bytes;
  uint64_t file_offset;
};
Result<LogArea> parse_log(std::span<const uint8_t> payload);

// The area that notes which requests are in flight. Some front-ends send the C structure as their
// compiler pads it, and want an answer of that length.
struct InflightDescription {
  uint64_t bytes;
  uint64_t file_offset;
  uint16_t queues;
  uint16_t queue_size;
};
Result<InflightDescription> parse_inflight(std::span<const uint8_t> payload);
std::vector<uint8_t> encode_inflight(const InflightDescription& description, size_t bytes);

// The answer to SET_DEVICE_STATE_FD: the front-end's descriptor is used, or it failed.
inline constexpr uint64_t kOwnDescriptorIsUsed = 1 << 8;
inline constexpr uint64_t kStateTransferFailed = kOwnDescriptorIsUsed | 1;

// Whether the back-end's state is loaded, or saved; always while the rings are stopped, which is
// the one phase there is.
Result<bool> parse_state_is_loaded(std::span<const uint8_t> payload);

struct ConfigAccess {
  uint32_t offset;
  uint32_t flags;
  std::vector<uint8_t> bytes;
};
Result<ConfigAccess> parse_config(std::span<const uint8_t> payload);
std::vector<uint8_t> encode_config(const ConfigAccess& access);

}  // namespace platter::vhost_user
