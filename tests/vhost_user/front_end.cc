#include "vhost_user/front_end.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/try.h"

namespace platter::front_end {
namespace {

constexpr size_t kHeaderBytes = 12;

// Numbers are in the machine's own byte order, which is little-endian wherever this runs.
class Payload {
 public:
  template <std::unsigned_integral T>
  Payload& add(T value) {
    const size_t at = bytes_.size();
    bytes_.resize(at + sizeof value);
    base::store_little<T>(bytes_, at, value);
    return *this;
  }
  Payload& add(std::span<const uint8_t> bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    return *this;
  }
  Payload& add(const Region& region) {
    return add(region.guest_address).add(region.bytes).add(region.user_address).add(region.offset);
  }
  std::vector<uint8_t> take() { return std::move(bytes_); }

 private:
  std::vector<uint8_t> bytes_;
};

std::unexpected<Error> unexpected_answer(const char* what, Request request) {
  return fail(EPROTO,
              fmt::format("The answer to message {} {}", static_cast<uint32_t>(request), what));
}

void take_descriptors(msghdr& header, std::vector<Descriptor>& descriptors) {
  for (cmsghdr* each = CMSG_FIRSTHDR(&header); each != nullptr; each = CMSG_NXTHDR(&header, each)) {
    if (each->cmsg_level != SOL_SOCKET || each->cmsg_type != SCM_RIGHTS) continue;
    for (size_t at = 0; at + CMSG_LEN(sizeof(int)) <= each->cmsg_len; at += sizeof(int)) {
      int number = -1;
      std::memcpy(&number, CMSG_DATA(each) + at, sizeof number);
      descriptors.emplace_back(number);
    }
  }
}

// All of the bytes, and the descriptors that come with them.
Result<void> receive_all(int socket, std::span<uint8_t> bytes,
                         std::vector<Descriptor>& descriptors) {
  while (!bytes.empty()) {
    alignas(cmsghdr) uint8_t control[CMSG_SPACE(FrontEnd::kMaxDescriptors * sizeof(int))];
    iovec piece = {bytes.data(), bytes.size()};
    msghdr header = {};
    header.msg_iov = &piece;
    header.msg_iovlen = 1;
    header.msg_control = control;
    header.msg_controllen = sizeof control;
    const ssize_t got = recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return std::unexpected(Error::from_errno(errno, "No message came"));
    if (got == 0) return fail(ECONNRESET, "The other side has hung up");
    take_descriptors(header, descriptors);
    bytes = bytes.subspan(static_cast<size_t>(got));
  }
  return {};
}

}  // namespace

FrontEnd::FrontEnd(Descriptor socket) : socket_(std::move(socket)) {
  const timeval limit = {.tv_sec = kAnswerLimit.count(), .tv_usec = 0};
  for (const int side : {SO_RCVTIMEO, SO_SNDTIMEO})
    setsockopt(socket_.get(), SOL_SOCKET, side, &limit, sizeof limit);
}

Result<FrontEnd> FrontEnd::connect(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return fail_errno(ENAMETOOLONG);
  std::memcpy(address.sun_path, path.data(), path.size());
  Descriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket) return fail_errno(errno);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return std::unexpected(Error::from_errno(errno, "Could not connect to '" + path + "'"));
  return FrontEnd(std::move(socket));
}

Result<void> FrontEnd::send(const Message& message, std::span<const int> descriptors) {
  return send_with_size(message, static_cast<uint32_t>(message.payload.size()), descriptors);
}

Result<void> FrontEnd::send_with_size(const Message& message, uint32_t size,
                                      std::span<const int> descriptors) {
  PLATTER_ASSERT(descriptors.size() <= kMaxDescriptors);
  Payload head;
  std::vector<uint8_t> bytes =
      head.add(message.request).add(message.flags).add(size).add(message.payload).take();
  alignas(cmsghdr) uint8_t control[CMSG_SPACE(kMaxDescriptors * sizeof(int))] = {};
  iovec piece = {bytes.data(), bytes.size()};
  msghdr header = {};
  header.msg_iov = &piece;
  header.msg_iovlen = 1;
  if (!descriptors.empty()) {
    header.msg_control = control;
    header.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(descriptors.size_bytes());
    std::memcpy(CMSG_DATA(rights), descriptors.data(), descriptors.size_bytes());
  }
  while (piece.iov_len != 0) {
    const ssize_t sent = sendmsg(socket_.get(), &header, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return std::unexpected(Error::from_errno(errno, "A message could not be sent"));
    piece.iov_base = static_cast<uint8_t*>(piece.iov_base) + sent;
    piece.iov_len -= static_cast<size_t>(sent);
    header.msg_control = nullptr;
    header.msg_controllen = 0;
  }
  return {};
}

Result<Message> FrontEnd::receive() {
  Message message;
  uint8_t head[kHeaderBytes];
  PLATTER_TRY(receive_all(socket_.get(), head, message.descriptors));
  message.request = base::load_little<uint32_t>(head, 0);
  message.flags = base::load_little<uint32_t>(head, 4);
  const auto size = base::load_little<uint32_t>(head, 8);
  if (size > kMaxPayload) return fail(EPROTO, fmt::format("A message says it has {} bytes", size));
  message.payload.resize(size);
  PLATTER_TRY(receive_all(socket_.get(), message.payload, message.descriptors));
  return message;
}

Result<Message> FrontEnd::ask(Request request, std::vector<uint8_t> payload,
                              std::span<const int> descriptors) {
  Message question;
  question.request = static_cast<uint32_t>(request);
  question.payload = std::move(payload);
  PLATTER_TRY(send(question, descriptors));
  PLATTER_ASSIGN(Message answer, receive());
  if (answer.request != question.request) return unexpected_answer("is one to another", request);
  if (answer.flags != (kVersion | kReply))
    return unexpected_answer("has other flags than one has", request);
  return answer;
}

Result<void> FrontEnd::command(Request request, std::vector<uint8_t> payload,
                               std::span<const int> descriptors) {
  Message message;
  message.request = static_cast<uint32_t>(request);
  message.payload = std::move(payload);
  if (!reply_ack_) return send(message, descriptors);
  message.flags |= kNeedReply;
  PLATTER_TRY(send(message, descriptors));
  PLATTER_ASSIGN(const Message answer, receive());
  if (answer.request != message.request) return unexpected_answer("is one to another", request);
  if (answer.payload.size() != sizeof(uint64_t)) return unexpected_answer("is no number", request);
  if (base::load_little<uint64_t>(answer.payload) != 0) return unexpected_answer("is no", request);
  return {};
}

Result<uint64_t> FrontEnd::get(Request request) {
  PLATTER_ASSIGN(const Message answer, ask(request, {}));
  if (answer.payload.size() != sizeof(uint64_t)) return unexpected_answer("is no number", request);
  return base::load_little<uint64_t>(answer.payload);
}

Result<void> FrontEnd::set(Request request, uint64_t value) {
  return command(request, Payload().add(value).take());
}

Result<void> FrontEnd::set_protocol_features(uint64_t features) {
  PLATTER_TRY(set(Request::kSetProtocolFeatures, features));
  reply_ack_ = (features & protocol_feature::kReplyAck) != 0;
  return {};
}

Result<std::vector<uint8_t>> FrontEnd::get_config(uint32_t offset, uint32_t bytes) {
  constexpr size_t kBefore = 3 * sizeof(uint32_t);
  const std::vector<uint8_t> room(bytes);
  PLATTER_ASSIGN(Message answer, ask(Request::kGetConfig,
                                     Payload().add(offset).add(bytes).add(0U).add(room).take()));
  if (answer.payload.size() != kBefore + bytes)
    return unexpected_answer("has another size than was asked for", Request::kGetConfig);
  answer.payload.erase(answer.payload.begin(), answer.payload.begin() + kBefore);
  return std::move(answer.payload);
}

Result<void> FrontEnd::set_config(uint32_t offset, std::span<const uint8_t> bytes, uint32_t flags) {
  const auto size = static_cast<uint32_t>(bytes.size());
  return command(Request::kSetConfig, Payload().add(offset).add(size).add(flags).add(bytes).take());
}

Result<void> FrontEnd::set_mem_table(int file, std::span<const Region> regions) {
  Payload payload;
  payload.add(static_cast<uint32_t>(regions.size())).add(uint32_t{0});
  for (const Region& region : regions) payload.add(region);
  return command(Request::kSetMemTable, payload.take(), std::vector<int>(regions.size(), file));
}

Result<void> FrontEnd::add_mem_reg(int file, const Region& region) {
  return command(Request::kAddMemReg, Payload().add(uint64_t{0}).add(region).take(), {&file, 1});
}

Result<void> FrontEnd::rem_mem_reg(const Region& region) {
  return command(Request::kRemMemReg, Payload().add(uint64_t{0}).add(region).take());
}

Result<void> FrontEnd::set_log_base(int file, uint64_t bytes, uint64_t offset) {
  auto answer = ask(Request::kSetLogBase, Payload().add(bytes).add(offset).take(), {&file, 1});
  if (!answer) return std::unexpected(std::move(answer).error());
  return {};
}

Result<Inflight> FrontEnd::get_inflight_fd(uint16_t queues, uint16_t queue_size) {
  PLATTER_ASSIGN(
      Message answer,
      ask(Request::kGetInflightFd,
          Payload().add(uint64_t{0}).add(uint64_t{0}).add(queues).add(queue_size).take()));
  if (answer.payload.size() < 20 || answer.descriptors.size() != 1)
    return unexpected_answer("describes no memory", Request::kGetInflightFd);
  return Inflight{.file = std::move(answer.descriptors[0]),
                  .bytes = base::load_little<uint64_t>(answer.payload, 0),
                  .offset = base::load_little<uint64_t>(answer.payload, 8),
                  .queues = base::load_little<uint16_t>(answer.payload, 16),
                  .queue_size = base::load_little<uint16_t>(answer.payload, 18)};
}

Result<void> FrontEnd::set_inflight_fd(const Inflight& inflight) {
  const int file = inflight.file.get();
  return command(Request::kSetInflightFd,
                 Payload()
                     .add(inflight.bytes)
                     .add(inflight.offset)
                     .add(inflight.queues)
                     .add(inflight.queue_size)
                     .take(),
                 {&file, 1});
}

Result<void> FrontEnd::set_device_state_fd(uint32_t direction, int pipe) {
  PLATTER_ASSIGN(const Message answer,
                 ask(Request::kSetDeviceStateFd, Payload().add(direction).add(kWhileStopped).take(),
                     {&pipe, 1}));
  if (answer.payload.size() == sizeof(uint64_t) &&
      base::load_little<uint64_t>(answer.payload) == kOwnPipe)
    return {};
  return unexpected_answer("does not take the pipe", Request::kSetDeviceStateFd);
}

Result<void> FrontEnd::check_device_state() {
  PLATTER_ASSIGN(const uint64_t failed, get(Request::kCheckDeviceState));
  if (failed == 0) return {};
  return unexpected_answer("says that it failed", Request::kCheckDeviceState);
}

Result<void> FrontEnd::set_backend_req_fd(int file) {
  return command(Request::kSetBackendReqFd, {}, {&file, 1});
}

Result<void> FrontEnd::set_vring_state(Request request, uint32_t queue, uint32_t value) {
  return command(request, Payload().add(queue).add(value).take());
}

Result<void> FrontEnd::set_vring_num(uint32_t queue, uint32_t entries) {
  return set_vring_state(Request::kSetVringNum, queue, entries);
}

Result<void> FrontEnd::set_vring_base(uint32_t queue, uint32_t base) {
  return set_vring_state(Request::kSetVringBase, queue, base);
}

Result<void> FrontEnd::set_vring_enable(uint32_t queue, bool enable) {
  return set_vring_state(Request::kSetVringEnable, queue, enable ? 1 : 0);
}

Result<void> FrontEnd::set_vring_addr(uint32_t queue, const VringAddresses& addresses) {
  return command(Request::kSetVringAddr, Payload()
                                             .add(queue)
                                             .add(addresses.flags)
                                             .add(addresses.descriptors)
                                             .add(addresses.used)
                                             .add(addresses.available)
                                             .add(addresses.log_guest_address)
                                             .take());
}

Result<uint32_t> FrontEnd::get_vring_base(uint32_t queue) {
  PLATTER_ASSIGN(const Message answer,
                 ask(Request::kGetVringBase, Payload().add(queue).add(uint32_t{0}).take()));
  if (answer.payload.size() != 2 * sizeof(uint32_t))
    return unexpected_answer("is no state of a queue", Request::kGetVringBase);
  return base::load_little<uint32_t>(answer.payload, sizeof(uint32_t));
}

Result<void> FrontEnd::set_vring_file(Request request, uint32_t queue, int file) {
  const uint64_t value = queue | (file < 0 ? kNoDescriptor : 0);
  return command(request, Payload().add(value).take(), {&file, file < 0 ? size_t{0} : size_t{1}});
}

Result<void> FrontEnd::set_vring_kick(uint32_t queue, int file) {
  return set_vring_file(Request::kSetVringKick, queue, file);
}

Result<void> FrontEnd::set_vring_call(uint32_t queue, int file) {
  return set_vring_file(Request::kSetVringCall, queue, file);
}

Result<void> FrontEnd::set_vring_err(uint32_t queue, int file) {
  return set_vring_file(Request::kSetVringErr, queue, file);
}

}  // namespace platter::front_end
