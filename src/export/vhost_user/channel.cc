#include "export/vhost_user/channel.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "base/try.h"

namespace platter::vhost_user {
namespace {

// Takes the descriptors out of a received message.
Result<void> take_descriptors(const msghdr& header, Message& message) {
  bool too_many = (header.msg_flags & MSG_CTRUNC) != 0;
  for (cmsghdr* control = CMSG_FIRSTHDR(&header); control != nullptr;
       control = CMSG_NXTHDR(const_cast<msghdr*>(&header), control)) {
    if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int descriptor;
      std::memcpy(&descriptor, CMSG_DATA(control) + i * sizeof(int), sizeof descriptor);
      io::Descriptor owned(descriptor);  // closed if it is one too many
      if (message.descriptors.size() == kMaxDescriptors) {
        too_many = true;
      } else {
        message.descriptors.push_back(std::move(owned));
      }
    }
  }
  if (too_many) return fail(EPROTO, "a message with too many descriptors");
  return {};
}

ssize_t send_some(int socket, std::span<const uint8_t> bytes, int descriptor) {
  alignas(cmsghdr) uint8_t control[CMSG_SPACE(sizeof(int))] = {};
  iovec piece = {.iov_base = const_cast<uint8_t*>(bytes.data()), .iov_len = bytes.size()};
  msghdr header{};
  header.msg_iov = &piece;
  header.msg_iovlen = 1;
  if (descriptor >= 0) {
    header.msg_control = control;
    header.msg_controllen = sizeof control;
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(rights), &descriptor, sizeof descriptor);
  }
  return sendmsg(socket, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
}

}  // namespace

io::Task<Result<size_t>> Channel::receive_some(std::span<uint8_t> bytes, Message& message) {
  for (;;) {
    alignas(cmsghdr) uint8_t control[CMSG_SPACE(kMaxDescriptors * sizeof(int))];
    iovec piece = {.iov_base = bytes.data(), .iov_len = bytes.size()};
    msghdr header{};
    header.msg_iov = &piece;
    header.msg_iovlen = 1;
    header.msg_control = control;
    header.msg_controllen = sizeof control;
    const ssize_t got = recvmsg(socket_.get(), &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got >= 0) {
      PLATTER_CO_TRY(take_descriptors(header, message));
      co_return static_cast<size_t>(got);
    }
    if (errno == ECONNRESET) co_return size_t{0};
    if (errno != EAGAIN && errno != EINTR)
      co_return std::unexpected(Error::from_errno(errno, "Could not receive"));
    if (errno == EAGAIN) PLATTER_CO_TRY(co_await readable_.readable());
  }
}

io::Task<Result<size_t>> Channel::receive_all(std::span<uint8_t> bytes, Message& message) {
  size_t done = 0;
  while (done < bytes.size()) {
    PLATTER_CO_ASSIGN(const size_t got, co_await receive_some(bytes.subspan(done), message));
    if (got == 0 && done == 0) co_return size_t{0};
    if (got == 0) co_return fail(EPROTO, "a message that is cut short");
    done += got;
  }
  co_return done;
}

io::Task<Result<std::optional<Message>>> Channel::receive() {
  Message message;
  std::array<uint8_t, kHeaderBytes> head;
  PLATTER_CO_ASSIGN(const size_t got, co_await receive_all(head, message));
  if (got == 0) co_return std::nullopt;
  PLATTER_CO_ASSIGN(message.header, Header::parse(head));
  const std::span<uint8_t> payload(message.bytes.data(), message.header.payload_bytes);
  if (!payload.empty()) {
    PLATTER_CO_ASSIGN(const size_t rest, co_await receive_all(payload, message));
    if (rest == 0) co_return fail(EPROTO, "a message that is cut short");
  }
  co_return std::optional<Message>(std::move(message));
}

void Channel::hang_up() { shutdown(socket_.get(), SHUT_RDWR); }

io::Task<Result<void>> Channel::send(std::span<const uint8_t> bytes, int descriptor) {
  while (!bytes.empty()) {
    const ssize_t sent = send_some(socket_.get(), bytes, descriptor);
    if (sent >= 0) {
      bytes = bytes.subspan(static_cast<size_t>(sent));
      descriptor = -1;
    } else if (errno == EAGAIN) {
      PLATTER_CO_TRY(co_await writable_.writable());
    } else if (errno != EINTR) {
      co_return std::unexpected(Error::from_errno(errno, "Could not send"));
    }
  }
  co_return Result<void>();
}

}  // namespace platter::vhost_user
