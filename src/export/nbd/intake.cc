#include "export/nbd/intake.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/assert.h"
#include "base/try.h"

namespace platter::nbd {

io::Task<Result<bool>> Intake::wait_for(size_t count) {
  PLATTER_ASSERT(count <= kBytes);
  if (begin_ != 0) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= std::exchange(begin_, 0);
  }
  while (!has(count)) {
    pieces_[0] = {.iov_base = buffer_.data() + end_, .iov_len = kBytes - end_};
    PLATTER_CO_ASSIGN(const size_t got, co_await stream_.receive(std::span(pieces_).first(1)));
    if (got == 0 && end_ == 0) co_return false;
    if (got == 0) co_return fail(EPROTO, "a request that is cut short");
    end_ += got;
  }
  co_return true;
}

std::span<const uint8_t> Intake::take(size_t count) {
  PLATTER_ASSERT(has(count));
  const std::span<const uint8_t> taken(buffer_.data() + begin_, count);
  begin_ += count;
  return taken;
}

size_t Intake::take_some(std::span<uint8_t> bytes) {
  const auto taken = take(std::min(bytes.size(), end_ - begin_));
  if (!taken.empty()) std::memcpy(bytes.data(), taken.data(), taken.size());
  return taken.size();
}

// What follows them in the stream comes along, where it is there.
io::Task<Result<void>> Intake::fill(std::span<uint8_t> bytes) {
  bytes = bytes.subspan(take_some(bytes));
  while (!bytes.empty()) {
    begin_ = end_ = 0;
    pieces_[0] = {.iov_base = bytes.data(), .iov_len = bytes.size()};
    pieces_[1] = {.iov_base = buffer_.data(), .iov_len = kBytes};
    PLATTER_CO_ASSIGN(const size_t got, co_await stream_.receive(pieces_));
    if (got == 0) co_return fail(EPROTO, "a request that is cut short");
    end_ = got - std::min(got, bytes.size());
    bytes = bytes.subspan(got - end_);
  }
  co_return Result<void>();
}

io::Task<Result<void>> Intake::skip(uint64_t count) {
  while (count != 0) {
    if (!has(1)) {
      PLATTER_CO_ASSIGN(const bool there, co_await wait_for(1));
      if (!there) co_return fail(EPROTO, "a request that is cut short");
    }
    count -= take(std::min<uint64_t>(count, end_ - begin_)).size();
  }
  co_return Result<void>();
}

}  // namespace platter::nbd
