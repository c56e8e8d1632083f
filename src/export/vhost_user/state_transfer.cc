#include "export/vhost_user/state_transfer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <span>

#include "base/try.h"
#include "io/reactor.h"

namespace platter::vhost_user {
namespace {

constexpr size_t kPieceBytes = 4096;

// Files may take their time, on the reactor.
Result<void> prepare(const io::Descriptor& pipe) {
  struct stat status;
  if (fstat(pipe.get(), &status) != 0) return std::unexpected(Error::from_errno(errno));
  if (!S_ISFIFO(status.st_mode) && !S_ISSOCK(status.st_mode))
    return fail(EINVAL, "a state goes through a pipe or a socket");
  const int flags = fcntl(pipe.get(), F_GETFL);
  if (flags < 0 || fcntl(pipe.get(), F_SETFL, flags | O_NONBLOCK) != 0)
    return std::unexpected(Error::from_errno(errno));
  return {};
}

}  // namespace

StateTransfer::StateTransfer(io::Descriptor pipe, std::vector<uint8_t> bytes, bool loads,
                             size_t max_bytes)
    : pipe_(std::move(pipe)),
      loads_(loads),
      max_bytes_(max_bytes),
      bytes_(std::move(bytes)),
      wait_(pipe_.get()) {}

StateTransfer::~StateTransfer() { PLATTER_ASSERT(!pipe_); }

Result<std::unique_ptr<StateTransfer>> StateTransfer::save(io::Descriptor pipe,
                                                           std::vector<uint8_t> bytes) {
  return begin(std::move(pipe), std::move(bytes), false, 0);
}

Result<std::unique_ptr<StateTransfer>> StateTransfer::load(io::Descriptor pipe, size_t max_bytes) {
  return begin(std::move(pipe), {}, true, max_bytes);
}

Result<std::unique_ptr<StateTransfer>> StateTransfer::begin(io::Descriptor pipe,
                                                            std::vector<uint8_t> bytes, bool loads,
                                                            size_t max_bytes) {
  PLATTER_TRY(prepare(pipe));
  std::unique_ptr<StateTransfer> made(
      new StateTransfer(std::move(pipe), std::move(bytes), loads, max_bytes));
  made->running_.spawn(*io::Reactor::current(), made->run());
  return made;
}

io::Task<Result<std::vector<uint8_t>>> StateTransfer::end() {
  co_await stop();
  PLATTER_CO_TRY(std::move(outcome_));
  co_return std::move(bytes_);
}

io::Task<void> StateTransfer::stop() {
  wait_.cancel();
  co_await running_.close();
}

io::Task<void> StateTransfer::run() {
  outcome_ = loads_ ? co_await read_all() : co_await write_all();
  // The front-end sees the end.
  pipe_.reset();
}

io::Task<Result<void>> StateTransfer::write_all() {
  for (std::span<const uint8_t> left = bytes_; !left.empty();) {
    const ssize_t written = write(pipe_.get(), left.data(), left.size());
    if (written >= 0) {
      left = left.subspan(static_cast<size_t>(written));
    } else {
      PLATTER_CO_TRY(co_await after(errno));
    }
  }
  co_return Result<void>();
}

io::Task<Result<void>> StateTransfer::read_all() {
  std::array<uint8_t, kPieceBytes> piece;
  for (;;) {
    const ssize_t got = read(pipe_.get(), piece.data(), piece.size());
    if (got == 0) co_return Result<void>();
    if (got < 0) {
      PLATTER_CO_TRY(co_await after(errno));
      continue;
    }
    bytes_.insert(bytes_.end(), piece.begin(), piece.begin() + got);
    if (bytes_.size() > max_bytes_)
      co_return fail(EFBIG, fmt::format("a state of more than {} bytes", max_bytes_));
  }
}

// What the other end did before it asked is there by now: after end() each look is the last one.
io::Task<Result<void>> StateTransfer::after(int code) {
  if (code == EINTR) co_return Result<void>();
  if (code != EAGAIN) co_return std::unexpected(Error::from_errno(code));
  if (wait_.is_cancelled())
    co_return fail(EAGAIN, loads_ ? "its end has not come" : "not all of it was taken");
  auto ready = loads_ ? co_await wait_.readable() : co_await wait_.writable();
  if (!ready && !wait_.is_cancelled()) co_return ready;
  co_return Result<void>();
}

}  // namespace platter::vhost_user
