#include "inspect/source.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/try.h"

namespace platter::inspect {

Result<std::vector<uint8_t>> Source::read(uint64_t offset, uint64_t length) {
  if (reads_left_ == 0 || length > bytes_left_) {
    return fail(EFBIG, "Its metadata is more than an inspection reads");
  }
  --reads_left_;
  bytes_left_ -= length;
  std::vector<uint8_t> bytes(length);
  if (offset < size_) {
    const uint64_t present = std::min(length, size_ - offset);
    if (present != 0) PLATTER_TRY(read_at(offset, std::span(bytes).first(present)));
  }
  return bytes;
}

Result<void> FileSource::read_at(uint64_t offset, std::span<uint8_t> into) {
  while (!into.empty()) {
    const ssize_t got = pread(descriptor_, into.data(), into.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return std::unexpected(Error::from_errno(errno, "Could not read the image"));
    // It has become shorter meanwhile: the rest stays zero.
    if (got == 0) return {};
    into = into.subspan(static_cast<size_t>(got));
    offset += static_cast<uint64_t>(got);
  }
  return {};
}

}  // namespace platter::inspect
