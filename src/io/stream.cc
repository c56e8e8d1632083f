#include "io/stream.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <climits>

#include "base/try.h"

namespace platter::io {
namespace {

msghdr message_of(std::span<const iovec> pieces) {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(pieces.data());
  message.msg_iovlen = std::min<size_t>(pieces.size(), IOV_MAX);
  return message;
}

}  // namespace

std::span<iovec> skip_bytes(std::span<iovec> pieces, size_t bytes) {
  while (!pieces.empty() && bytes >= pieces.front().iov_len) {
    bytes -= pieces.front().iov_len;
    pieces = pieces.subspan(1);
  }
  if (bytes != 0) {
    iovec& first = pieces.front();
    first = {.iov_base = static_cast<uint8_t*>(first.iov_base) + bytes,
             .iov_len = first.iov_len - bytes};
  }
  return pieces;
}

Task<Result<bool>> Stream::receive_all(std::span<uint8_t> bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    const iovec piece = {.iov_base = bytes.data() + done, .iov_len = bytes.size() - done};
    PLATTER_CO_ASSIGN(const size_t got, co_await receive({&piece, 1}));
    if (got == 0 && done == 0) co_return false;
    if (got == 0) co_return fail(EPROTO, "the peer has ended in the middle of a message");
    done += got;
  }
  co_return true;
}

Task<Result<void>> Stream::send_all(std::span<const uint8_t> bytes) {
  iovec piece = {.iov_base = const_cast<uint8_t*>(bytes.data()), .iov_len = bytes.size()};
  co_return co_await send({&piece, 1});
}

Task<Result<size_t>> SocketStream::receive(std::span<const iovec> pieces) {
  for (;;) {
    msghdr message = message_of(pieces);
    const ssize_t got = recvmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got >= 0) co_return static_cast<size_t>(got);
    if (errno == ECONNRESET) co_return size_t{0};
    if (errno != EAGAIN && errno != EINTR)
      co_return std::unexpected(Error::from_errno(errno, "Could not receive"));
    if (errno == EAGAIN) PLATTER_CO_TRY(co_await readable_.readable());
  }
}

Task<Result<void>> SocketStream::send(std::span<iovec> pieces) {
  pieces = skip_bytes(pieces, 0);
  while (!pieces.empty()) {
    const msghdr message = message_of(pieces);
    const ssize_t sent = sendmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0) {
      pieces = skip_bytes(pieces, static_cast<size_t>(sent));
    } else if (errno == EAGAIN) {
      PLATTER_CO_TRY(co_await writable_.writable());
    } else if (errno != EINTR) {
      co_return std::unexpected(Error::from_errno(errno, "Could not send"));
    }
  }
  co_return Result<void>();
}

void SocketStream::finish() { shutdown(socket_.get(), SHUT_RDWR); }

void SocketStream::cancel() {
  readable_.cancel();
  writable_.cancel();
}

}  // namespace platter::io
