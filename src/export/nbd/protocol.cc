#include "export/nbd/protocol.h"

#include <fmt/format.h>

#include <cerrno>

#include "base/bytes.h"
#include "base/try.h"

namespace platter::nbd {
namespace {

constexpr uint32_t kRequestMagic = 0x25609513;
constexpr uint32_t kExtendedRequestMagic = 0x21e41c71;

}  // namespace

uint64_t Request::payload_bytes(Framing framing) const {
  const bool flagged = framing == Framing::kExtended && has(kPayloadLength);
  return command == Command::kWrite || flagged ? length : 0;
}

Result<Request> parse_request(Framing framing, std::span<const uint8_t> bytes) {
  PLATTER_ASSERT(bytes.size() == request_bytes(framing));
  const bool extended = framing == Framing::kExtended;
  const auto magic = base::load_big<uint32_t>(bytes);
  if (magic != (extended ? kExtendedRequestMagic : kRequestMagic))
    return fail(EPROTO, fmt::format("a request that begins with {:#010x}", magic));
  return Request{
      .flags = base::load_big<uint16_t>(bytes, 4),
      .command = static_cast<Command>(base::load_big<uint16_t>(bytes, 6)),
      .cookie = base::load_big<uint64_t>(bytes, 8),
      .offset = base::load_big<uint64_t>(bytes, 16),
      .length =
          extended ? base::load_big<uint64_t>(bytes, 24) : base::load_big<uint32_t>(bytes, 24),
  };
}

uint32_t error_number(int code) {
  switch (code) {
    case EPERM:
    case EACCES:
    case EROFS: return 1;
    case EIO: return 5;
    case ENOMEM: return 12;
    case EINVAL: return 22;
    case ENOSPC:
    case EDQUOT:
    case EFBIG: return 28;
    case EOVERFLOW: return 75;
    case ENOTSUP: return 95;
    case ESHUTDOWN: return 108;
    default: return 5;
  }
}

}  // namespace platter::nbd
