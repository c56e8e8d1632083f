#include "export/vhost_user/export.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/absolute_path.h"
#include "base/try.h"

namespace platter::vhost_user {
namespace {

constexpr int kBacklog = 8;
constexpr uint32_t kMaxDiscardSectors = 32768;
constexpr const char* kSerial = "vhost_user_blk";

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return fail(EINVAL, fmt::format("A UNIX socket's path has 1 to {} bytes, not {}",
                                    sizeof address.sun_path - 1, path.size()));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

// Whether the process that listens at the other end still runs: the system keeps the socket of one
// that was killed until its last requests have ended.
bool is_listener_alive(const io::Descriptor& connection) {
  ucred listener{};
  socklen_t bytes = sizeof listener;
  if (getsockopt(connection.get(), SOL_SOCKET, SO_PEERCRED, &listener, &bytes) != 0 ||
      listener.pid == 0)
    return true;  // as far as can be seen from here
  const io::Descriptor process(static_cast<int>(syscall(SYS_pidfd_open, listener.pid, 0)));
  if (!process) return errno != ESRCH;
  pollfd ended = {.fd = process.get(), .events = POLLIN, .revents = 0};
  return poll(&ended, 1, 0) != 1;
}

// A socket that nobody listens at any more was left behind.
void remove_leftover(const std::string& path, const sockaddr_un& address) {
  struct stat status;
  if (lstat(path.c_str(), &status) != 0 || !S_ISSOCK(status.st_mode)) return;
  const io::Descriptor probe(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const bool connected =
      connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  if (connected ? !is_listener_alive(probe) : errno == ECONNREFUSED) unlink(path.c_str());
}

Result<io::Descriptor> listen_at(const std::string& path, unsigned mode) {
  auto failed = [&](int code) {
    return std::unexpected(Error::from_errno(code, "Could not listen at '" + path + "'"));
  };
  PLATTER_ASSIGN(const sockaddr_un address, address_of(path));
  remove_leftover(path, address);
  io::Descriptor listening(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listening) return failed(errno);
  // Before there is a name: nobody comes in between.
  if (fchmod(listening.get(), mode) != 0) return failed(errno);
  if (bind(listening.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return failed(errno);
  if (listen(listening.get(), kBacklog) != 0) return failed(errno);
  return listening;
}

}  // namespace

virtio::blk::Properties default_properties() {
  virtio::blk::Properties properties;
  properties.min_io_bytes = properties.logical_block_bytes;
  properties.opt_io_bytes = properties.logical_block_bytes;
  properties.serial = kSerial;
  properties.seg_max_adjust = false;
  properties.read_error = virtio::blk::OnError::kReport;
  properties.write_error = virtio::blk::OnError::kReport;
  properties.max_discard_sectors = kMaxDiscardSectors;
  properties.max_write_zeroes_sectors = kMaxDiscardSectors;
  return properties;
}

Export::Export(std::unique_ptr<virtio::blk::Device> device, Options options, const base::Log& log)
    : device_(std::move(device)),
      options_(std::move(options)),
      log_(log),
      waiting_(options_.listening.get()) {}

Export::~Export() { PLATTER_ASSERT(stopping_ && session_ == nullptr); }

Result<std::unique_ptr<Export>> Export::start(block::Backend& backend, Options options,
                                              const base::Log& log) {
  PLATTER_ASSERT(!options.reactors.empty());
  if (options.properties.queues > Options::kMaxQueues) {
    return fail(EINVAL, fmt::format("{} queues; vhost-user has at most {}",
                                    options.properties.queues, Options::kMaxQueues));
  }
  PLATTER_ASSIGN(auto device, virtio::blk::Device::make(backend, options.properties));
  if (options.slow_request.count() != 0) {
    device->watch_slow_requests(std::make_unique<virtio::blk::SlowRequests>(
        log, backend.node().filename(), options.slow_request));
  }
  device->errors().set_observer(std::move(options.on_failure));
  if (!options.listening) {
    PLATTER_ASSIGN(std::string socket_file, base::absolute_path(options.path));
    PLATTER_ASSIGN(options.listening, listen_at(options.path, options.socket_mode));
    options.path = std::move(socket_file);
  }
  std::unique_ptr<Export> made(new Export(std::move(device), std::move(options), log));
  made->serving_.spawn(*io::Reactor::current(), made->serve());
  return made;
}

io::Task<void> Export::serve() {
  while (co_await waiting_.readable()) {
    io::Descriptor peer(
        accept4(options_.listening.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!peer) {
      if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED) continue;
      log_.log().warning("vhost-user: " +
                         Error::from_errno(errno, "Could not take a connection").message());
      // Descriptors may become free again.
      co_await io::Reactor::current()->sleep_for(std::chrono::milliseconds(100));
      continue;
    }
    session_ = std::make_unique<Session>(std::move(peer), *device_, options_.reactors, log_.log());
    co_await session_->run();
    session_.reset();
  }
}

io::Task<void> Export::stop() {
  stopping_ = true;
  waiting_.cancel();
  if (session_) session_->cancel();
  co_await serving_.close();
  if (!options_.path.empty()) unlink(options_.path.c_str());
}

void Export::go_on() {
  device_->errors().go_on();
  if (session_) session_->go_on();
}

void Export::config_changed() {
  if (session_) session_->config_changed();
}

}  // namespace platter::vhost_user
