#include "export/nbd/reply.h"

#include <cstring>

#include "base/bytes.h"

namespace platter::nbd {
namespace {

constexpr uint32_t kSimpleMagic = 0x67446698;
constexpr uint32_t kStructuredMagic = 0x668e33ef;
constexpr uint32_t kExtendedMagic = 0x6e8a278c;
constexpr size_t kSimpleHeader = 16;
constexpr size_t kStructuredHeader = 20;
constexpr size_t kExtendedHeader = 32;
constexpr uint16_t kLast = 1;

}  // namespace

void Reply::begin(Framing framing, const Request& request) {
  framing_ = framing;
  request_ = &request;
  if (headers_.capacity() > kKeptBytes) headers_ = {};
  headers_.clear();
  attached_.clear();
}

std::span<uint8_t> Reply::append(size_t bytes) {
  const size_t at = headers_.size();
  headers_.resize(at + bytes);
  return std::span(headers_).subspan(at);
}

void Reply::simple(uint32_t error) {
  const std::span<uint8_t> header = append(kSimpleHeader);
  base::store_big(header, 0, kSimpleMagic);
  base::store_big(header, 4, error);
  base::store_big(header, 8, request_->cookie);
}

std::span<uint8_t> Reply::chunk(Chunk type, bool last, size_t own, size_t attached) {
  const bool extended = framing_ == Framing::kExtended;
  const size_t header_bytes = extended ? kExtendedHeader : kStructuredHeader;
  const std::span<uint8_t> header = append(header_bytes + own);
  base::store_big(header, 0, extended ? kExtendedMagic : kStructuredMagic);
  base::store_big(header, 4, last ? kLast : uint16_t{0});
  base::store_big(header, 6, static_cast<uint16_t>(type));
  base::store_big(header, 8, request_->cookie);
  const uint64_t payload = own + attached;
  if (extended) {
    base::store_big(header, 16, request_->offset);
    base::store_big(header, 24, payload);
  } else {
    base::store_big(header, 16, static_cast<uint32_t>(payload));
  }
  return header.subspan(header_bytes);
}

void Reply::attach(std::span<const uint8_t> data) { attached_.push_back({headers_.size(), data}); }

void Reply::error(uint32_t number, std::string_view message) {
  if (framing_ == Framing::kSimple) return simple(number);
  message = message.substr(0, kMaxString);
  const std::span<uint8_t> body = chunk(Chunk::kError, true, 6 + message.size());
  base::store_big(body, 0, number);
  base::store_big(body, 4, static_cast<uint16_t>(message.size()));
  std::memcpy(body.data() + 6, message.data(), message.size());
}

void Reply::done() {
  // Where both may be, a simple reply is the shorter one.
  const bool chunked = framing_ == Framing::kExtended ||
                       (framing_ == Framing::kStructured && request_->command == Command::kRead);
  if (!chunked) return simple(0);
  chunk(Chunk::kNone, true, 0);
}

void Reply::append_to(std::vector<iovec>& pieces) {
  size_t begin = 0;
  auto append_headers = [&](size_t end) {
    if (end == begin) return;
    pieces.push_back({.iov_base = headers_.data() + begin, .iov_len = end - begin});
    begin = end;
  };
  for (const Attached& one : attached_) {
    append_headers(one.after);
    pieces.push_back(
        {.iov_base = const_cast<uint8_t*>(one.data.data()), .iov_len = one.data.size()});
  }
  append_headers(headers_.size());
}

}  // namespace platter::nbd
