#include "block/secret_source.h"

#include <cerrno>

#include "base/try.h"
#include "fmt/format.h"

namespace platter::block {
namespace {

// RFC 3629: no overlong form, no surrogate, nothing above U+10FFFF.
bool is_utf8(std::span<const uint8_t> text) {
  for (size_t i = 0; i < text.size();) {
    const uint8_t lead = text[i++];
    if (lead < 0x80) continue;
    const size_t follow = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
    if (lead < 0xc2 || lead > 0xf4 || text.size() - i < follow) return false;
    for (size_t j = 0; j < follow; ++j)
      if ((text[i + j] & 0xc0) != 0x80) return false;
    const uint8_t second = text[i];
    if ((lead == 0xe0 && second < 0xa0) || (lead == 0xed && second > 0x9f) ||
        (lead == 0xf0 && second < 0x90) || (lead == 0xf4 && second > 0x8f)) {
      return false;
    }
    i += follow;
  }
  return true;
}

}  // namespace

Error no_such_secret(std::string_view id) {
  return Error(ENOENT, fmt::format("No secret with id '{}'", id));
}

Result<base::SecretBytes> find_passphrase(const SecretSource* source, std::string_view id) {
  if (source == nullptr) return std::unexpected(no_such_secret(id));
  PLATTER_ASSIGN(auto passphrase, source->secret(id));
  if (!is_utf8(passphrase.span()))
    return fail(EINVAL, fmt::format("Data from secret {} is not valid UTF-8", id));
  return passphrase;
}

}  // namespace platter::block
