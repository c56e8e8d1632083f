#include "export/vhost_user/message.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>

#include "base/try.h"

namespace platter::vhost_user {
namespace {

constexpr uint32_t kVersion = 1;
constexpr uint32_t kVersionMask = 3;
constexpr uint32_t kReply = 4;
constexpr uint32_t kNeedsReply = 8;
constexpr size_t kMaxTableRegions = 8;
constexpr size_t kRegionBytes = 32;
constexpr size_t kConfigHeaderBytes = 12;
constexpr size_t kInflightBytes = 20;
constexpr size_t kPaddedInflightBytes = 24;
constexpr uint64_t kNoDescriptor = 1 << 8;
constexpr uint64_t kIndexMask = 0xff;

// The two programs run on one machine: its order is the one of the wire.
template <typename T>
T load(std::span<const uint8_t> bytes, size_t offset) {
  PLATTER_ASSERT(offset + sizeof(T) <= bytes.size());
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}
template <typename T>
void append(std::vector<uint8_t>& bytes, T value) {
  const auto* raw = reinterpret_cast<const uint8_t*>(&value);
  bytes.insert(bytes.end(), raw, raw + sizeof value);
}

Result<void> check_bytes(std::span<const uint8_t> payload, size_t expected) {
  if (payload.size() == expected) return {};
  return fail(EPROTO,
              fmt::format("a payload of {} bytes where {} are expected", payload.size(), expected));
}

std::vector<uint8_t> encode(uint32_t request, uint32_t flags, std::span<const uint8_t> payload) {
  std::vector<uint8_t> message;
  message.reserve(kHeaderBytes + payload.size());
  append<uint32_t>(message, request);
  append<uint32_t>(message, flags);
  append<uint32_t>(message, static_cast<uint32_t>(payload.size()));
  message.insert(message.end(), payload.begin(), payload.end());
  return message;
}

RegionDescription load_region(std::span<const uint8_t> bytes, size_t offset) {
  return {.guest_address = load<uint64_t>(bytes, offset),
          .bytes = load<uint64_t>(bytes, offset + 8),
          .user_address = load<uint64_t>(bytes, offset + 16),
          .file_offset = load<uint64_t>(bytes, offset + 24)};
}

}  // namespace

const char* name_of(Request request) {
  switch (request) {
    case Request::kGetFeatures: return "GET_FEATURES";
    case Request::kSetFeatures: return "SET_FEATURES";
    case Request::kSetOwner: return "SET_OWNER";
    case Request::kResetOwner: return "RESET_OWNER";
    case Request::kSetMemoryTable: return "SET_MEM_TABLE";
    case Request::kSetLogBase: return "SET_LOG_BASE";
    case Request::kSetLogEvent: return "SET_LOG_FD";
    case Request::kSetVringSize: return "SET_VRING_NUM";
    case Request::kSetVringAddress: return "SET_VRING_ADDR";
    case Request::kSetVringBase: return "SET_VRING_BASE";
    case Request::kGetVringBase: return "GET_VRING_BASE";
    case Request::kSetVringKick: return "SET_VRING_KICK";
    case Request::kSetVringCall: return "SET_VRING_CALL";
    case Request::kSetVringError: return "SET_VRING_ERR";
    case Request::kGetProtocolFeatures: return "GET_PROTOCOL_FEATURES";
    case Request::kSetProtocolFeatures: return "SET_PROTOCOL_FEATURES";
    case Request::kGetQueueCount: return "GET_QUEUE_NUM";
    case Request::kSetVringEnable: return "SET_VRING_ENABLE";
    case Request::kSetBackendChannel: return "SET_BACKEND_REQ_FD";
    case Request::kGetConfig: return "GET_CONFIG";
    case Request::kSetConfig: return "SET_CONFIG";
    case Request::kGetInflight: return "GET_INFLIGHT_FD";
    case Request::kSetInflight: return "SET_INFLIGHT_FD";
    case Request::kResetDevice: return "RESET_DEVICE";
    case Request::kGetMaxMemorySlots: return "GET_MAX_MEM_SLOTS";
    case Request::kAddMemoryRegion: return "ADD_MEM_REG";
    case Request::kRemoveMemoryRegion: return "REM_MEM_REG";
    case Request::kSetStatus: return "SET_STATUS";
    case Request::kGetStatus: return "GET_STATUS";
    case Request::kSetDeviceState: return "SET_DEVICE_STATE_FD";
    case Request::kCheckDeviceState: return "CHECK_DEVICE_STATE";
  }
  return nullptr;
}

Result<Header> Header::parse(std::span<const uint8_t> bytes) {
  const Header header = {.request = load<uint32_t>(bytes, 0),
                         .flags = load<uint32_t>(bytes, 4),
                         .payload_bytes = load<uint32_t>(bytes, 8)};
  if ((header.flags & kVersionMask) != kVersion) {
    return fail(EPROTO, fmt::format("a message of version {} of the protocol",
                                    header.flags & kVersionMask));
  }
  if ((header.flags & kReply) != 0) return fail(EPROTO, "a reply that nobody asked for");
  if (header.payload_bytes > kMaxPayloadBytes) {
    return fail(EPROTO, fmt::format("a message with a payload of {} bytes; at most {} are taken",
                                    header.payload_bytes, kMaxPayloadBytes));
  }
  return header;
}

bool Header::wants_reply() const { return (flags & kNeedsReply) != 0; }

std::vector<uint8_t> encode_reply(uint32_t request, std::span<const uint8_t> payload) {
  return encode(request, kVersion | kReply, payload);
}

std::vector<uint8_t> encode_request(BackendRequest request) {
  return encode(static_cast<uint32_t>(request), kVersion, {});
}

Result<uint64_t> parse_number(std::span<const uint8_t> payload) {
  PLATTER_TRY(check_bytes(payload, sizeof(uint64_t)));
  return load<uint64_t>(payload, 0);
}

std::vector<uint8_t> encode_number(uint64_t number) {
  std::vector<uint8_t> payload;
  append(payload, number);
  return payload;
}

Result<VringState> parse_vring_state(std::span<const uint8_t> payload) {
  PLATTER_TRY(check_bytes(payload, 8));
  return VringState{.index = load<uint32_t>(payload, 0), .number = load<uint32_t>(payload, 4)};
}

std::vector<uint8_t> encode_vring_state(VringState state) {
  std::vector<uint8_t> payload;
  append(payload, state.index);
  append(payload, state.number);
  return payload;
}

Result<VringAddress> parse_vring_address(std::span<const uint8_t> payload) {
  PLATTER_TRY(check_bytes(payload, 40));
  return VringAddress{.index = load<uint32_t>(payload, 0),
                      .flags = load<uint32_t>(payload, 4),
                      .descriptor_area = load<uint64_t>(payload, 8),
                      .device_area = load<uint64_t>(payload, 16),
                      .driver_area = load<uint64_t>(payload, 24),
                      .log = load<uint64_t>(payload, 32)};
}

Result<VringDescriptor> parse_vring_descriptor(std::span<const uint8_t> payload) {
  PLATTER_ASSIGN(const uint64_t number, parse_number(payload));
  return VringDescriptor{.index = static_cast<uint32_t>(number & kIndexMask),
                         .has_descriptor = (number & kNoDescriptor) == 0};
}

// A front-end may send the table at its full length with fewer regions in it.
Result<std::vector<RegionDescription>> parse_memory_table(std::span<const uint8_t> payload) {
  if (payload.size() < 8) return fail(EPROTO, "a memory table without a length");
  const auto count = load<uint32_t>(payload, 0);
  if (count > kMaxTableRegions) {
    return fail(EPROTO, fmt::format("a memory table of {} regions; at most {} are taken", count,
                                    kMaxTableRegions));
  }
  if (payload.size() < 8 + count * kRegionBytes)
    return fail(EPROTO, fmt::format("a memory table of {} regions that is cut short", count));
  std::vector<RegionDescription> regions;
  for (size_t i = 0; i < count; ++i) regions.push_back(load_region(payload, 8 + i * kRegionBytes));
  return regions;
}

Result<RegionDescription> parse_memory_region(std::span<const uint8_t> payload) {
  PLATTER_TRY(check_bytes(payload, 8 + kRegionBytes));
  return load_region(payload, 8);
}

Result<LogArea> parse_log(std::span<const uint8_t> payload) {
  PLATTER_TRY(check_bytes(payload, 16));
  return LogArea{.bytes = load<uint64_t>(payload, 0), .file_offset = load<uint64_t>(payload, 8)};
}

Result<InflightDescription> parse_inflight(std::span<const uint8_t> payload) {
  if (payload.size() != kPaddedInflightBytes) PLATTER_TRY(check_bytes(payload, kInflightBytes));
  return InflightDescription{.bytes = load<uint64_t>(payload, 0),
                             .file_offset = load<uint64_t>(payload, 8),
                             .queues = load<uint16_t>(payload, 16),
                             .queue_size = load<uint16_t>(payload, 18)};
}

std::vector<uint8_t> encode_inflight(const InflightDescription& description, size_t bytes) {
  PLATTER_ASSERT(bytes >= kInflightBytes);
  std::vector<uint8_t> payload;
  append(payload, description.bytes);
  append(payload, description.file_offset);
  append(payload, description.queues);
  append(payload, description.queue_size);
  payload.resize(bytes);
  return payload;
}

Result<bool> parse_state_is_loaded(std::span<const uint8_t> payload) {
  PLATTER_TRY(check_bytes(payload, 2 * sizeof(uint32_t)));
  const auto direction = load<uint32_t>(payload, 0);
  const auto phase = load<uint32_t>(payload, sizeof(uint32_t));
  if (direction > 1 || phase != 0) {
    return fail(EPROTO,
                fmt::format("a state's transfer in direction {} and phase {}", direction, phase));
  }
  return direction == 1;
}

Result<ConfigAccess> parse_config(std::span<const uint8_t> payload) {
  if (payload.size() < kConfigHeaderBytes)
    return fail(EPROTO, "an access to the configuration that is cut short");
  const auto bytes = load<uint32_t>(payload, 4);
  if (bytes > kMaxConfigBytes) {
    return fail(EPROTO, fmt::format("an access to {} bytes of the configuration; at most {} are "
                                    "allowed",
                                    bytes, kMaxConfigBytes));
  }
  PLATTER_TRY(check_bytes(payload, kConfigHeaderBytes + bytes));
  const auto data = payload.subspan(kConfigHeaderBytes);
  return ConfigAccess{.offset = load<uint32_t>(payload, 0),
                      .flags = load<uint32_t>(payload, 8),
                      .bytes = {data.begin(), data.end()}};
}

std::vector<uint8_t> encode_config(const ConfigAccess& access) {
  std::vector<uint8_t> payload;
  append(payload, access.offset);
  append(payload, static_cast<uint32_t>(access.bytes.size()));
  append(payload, access.flags);
  payload.insert(payload.end(), access.bytes.begin(), access.bytes.end());
  return payload;
}

}  // namespace platter::vhost_user
