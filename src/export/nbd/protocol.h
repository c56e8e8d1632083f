// The NBD protocol's numbers, and what a client sends in the transmission phase, parsed once (the
// NBD protocol, "Values"; fixed newstyle only). All integers are big-endian.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "platter/error.h"

namespace platter::nbd {

inline constexpr uint64_t kServerMagic = 0x4e42444d41474943;  // "NBDMAGIC"
inline constexpr uint64_t kOptionMagic = 0x49484156454F5054;  // "IHAVEOPT"
inline constexpr uint64_t kOptionReplyMagic = 0x3e889045565a9;

// Of both sides' handshake flags.
inline constexpr uint32_t kFixedNewstyle = 1;
inline constexpr uint32_t kNoZeroes = 2;

// What strings may have, in bytes.
inline constexpr size_t kMaxString = 4096;
// The largest read and write.
inline constexpr uint32_t kMaxPayload = uint32_t{32} << 20;

enum class Option : uint32_t {
  kExportName = 1,
  kAbort = 2,
  kList = 3,
  kStartTls = 5,
  kInfo = 6,
  kGo = 7,
  kStructuredReply = 8,
  kListMetaContext = 9,
  kSetMetaContext = 10,
  kExtendedHeaders = 11,
};

enum class OptionReply : uint32_t {
  kAck = 1,
  kServer = 2,
  kInfo = 3,
  kMetaContext = 4,
  kUnsupported = 0x80000001,
  kPolicy = 0x80000002,
  kInvalid = 0x80000003,
  kTlsRequired = 0x80000005,
  kUnknown = 0x80000006,
  kBlockSizeRequired = 0x80000008,
  kTooBig = 0x80000009,
  kExtendedHeadersRequired = 0x8000000a,
};

enum class Info : uint16_t { kExport = 0, kName = 1, kDescription = 2, kBlockSize = 3 };

// Transmission flags.
inline constexpr uint16_t kHasFlags = 1 << 0;
inline constexpr uint16_t kReadOnly = 1 << 1;
inline constexpr uint16_t kSendFlush = 1 << 2;
inline constexpr uint16_t kSendFua = 1 << 3;
inline constexpr uint16_t kSendTrim = 1 << 5;
inline constexpr uint16_t kSendWriteZeroes = 1 << 6;
inline constexpr uint16_t kSendDontFragment = 1 << 7;
inline constexpr uint16_t kCanMultiConnection = 1 << 8;
inline constexpr uint16_t kSendCache = 1 << 10;
inline constexpr uint16_t kSendFastZero = 1 << 11;
inline constexpr uint16_t kBlockStatusPayload = 1 << 12;

enum class Command : uint16_t {
  kRead = 0,
  kWrite = 1,
  kDisconnect = 2,
  kFlush = 3,
  kTrim = 4,
  kCache = 5,
  kWriteZeroes = 6,
  kBlockStatus = 7,
};

// Command flags.
inline constexpr uint16_t kFua = 1 << 0;
inline constexpr uint16_t kNoHole = 1 << 1;
inline constexpr uint16_t kDontFragment = 1 << 2;
inline constexpr uint16_t kRequestOne = 1 << 3;
inline constexpr uint16_t kFastZero = 1 << 4;
inline constexpr uint16_t kPayloadLength = 1 << 5;

enum class Chunk : uint16_t {
  kNone = 0,
  kOffsetData = 1,
  kOffsetHole = 2,
  kBlockStatus = 5,
  kBlockStatusExtended = 6,
  kError = 0x8001,
};

// Of base:allocation.
inline constexpr uint32_t kStatusHole = 1;
inline constexpr uint32_t kStatusZero = 2;
// Of qemu:dirty-bitmap:NAME.
inline constexpr uint32_t kStatusDirty = 1;

// How requests and replies are framed, as the client has negotiated it.
enum class Framing : uint8_t { kSimple, kStructured, kExtended };

struct Request {
  uint16_t flags = 0;
  Command command{};  // may be none of them
  uint64_t cookie = 0;
  uint64_t offset = 0;
  uint64_t length = 0;

  bool has(uint16_t flag) const { return (flags & flag) != 0; }
  // How much follows the header.
  uint64_t payload_bytes(Framing framing) const;
};

constexpr size_t request_bytes(Framing framing) { return framing == Framing::kExtended ? 32 : 28; }

// `bytes`: request_bytes() of them. EPROTO: it is no request.
Result<Request> parse_request(Framing framing, std::span<const uint8_t> bytes);

// The protocol's number for an errno value.
uint32_t error_number(int code);

}  // namespace platter::nbd
