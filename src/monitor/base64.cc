#include "monitor/base64.h"

#include <cerrno>
#include <cstdint>

#include "base/try.h"

namespace platter::monitor {
namespace {

constexpr std::string_view kDigits =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

}  // namespace

Result<base::SecretBytes> decode_base64(std::string_view text) {
  base::SecretBytes bytes(text.size());  // more than enough
  size_t size = 0;
  uint32_t bits = 0;
  unsigned count = 0;
  bool padded = false;
  for (const char c : text) {
    if (c == '\n' || c == '\r' || c == ' ' || c == '\t') continue;
    const size_t digit = kDigits.find(c);
    padded = padded || c == '=';
    if (c == '\0') return fail(EINVAL, "Base64 data contains embedded NUL characters");
    if (padded ? c != '=' : digit == kDigits.npos)
      return fail(EINVAL, "Base64 data contains invalid characters");
    if (padded) continue;
    bits = bits << 6 | static_cast<uint32_t>(digit);
    count += 6;
    if (count < 8) continue;
    count -= 8;
    bytes.data()[size++] = static_cast<uint8_t>(bits >> count & 0xff);
  }
  return base::SecretBytes::copy_of(bytes.span().first(size));
}

std::string encode_base64(std::string_view bytes) {
  std::string text;
  for (size_t at = 0; at < bytes.size(); at += 3) {
    const std::string_view group = bytes.substr(at, 3);
    uint32_t bits = 0;
    for (size_t i = 0; i < 3; ++i)
      bits = bits << 8 | (i < group.size() ? static_cast<uint8_t>(group[i]) : 0);
    for (size_t digit = 0; digit < 4; ++digit)
      text += digit <= group.size() ? kDigits[bits >> (18 - 6 * digit) & 63] : '=';
  }
  return text;
}

}  // namespace platter::monitor
