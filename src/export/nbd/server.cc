#include "export/nbd/server.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/try.h"
#include "export/nbd/connection.h"

namespace platter::nbd {
namespace {

constexpr uint64_t kAnyNumber = uint64_t{1} << 32;

// Best effort: what they are for works without them, but later.
void tune(const io::Descriptor& socket, int family) {
  if (family != AF_INET && family != AF_INET6) return;
  const int on = 1;
  (void)setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  // A client whose machine is gone is noticed one day.
  (void)setsockopt(socket.get(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}

}  // namespace

Server::Server(ServerOptions options, const base::Log& log)
    : options_(std::move(options)),
      reactor_(*io::Reactor::current()),
      log_(log),
      waiting_(options_.listening.get()),
      places_(options_.max_connections == 0 ? kAnyNumber : options_.max_connections) {}

Server::~Server() { PLATTER_ASSERT(stopping_ && connections_.empty() && exports_.empty()); }

std::unique_ptr<Server> Server::start(ServerOptions options, const base::Log& log) {
  std::unique_ptr<Server> made(new Server(std::move(options), log));
  made->serving_.spawn(made->reactor_, made->serve());
  return made;
}

io::Task<Result<io::Descriptor>> Server::next_client() {
  for (;;) {
    PLATTER_CO_TRY(co_await waiting_.readable());
    sockaddr_storage peer{};
    socklen_t bytes = sizeof peer;
    io::Descriptor socket(accept4(options_.listening.get(), reinterpret_cast<sockaddr*>(&peer),
                                  &bytes, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (socket) {
      tune(socket, peer.ss_family);
      co_return socket;
    }
    if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED) continue;
    log_.log().warning("nbd: " + Error::from_errno(errno, "Could not take a connection").message());
    // Descriptors may become free again.
    co_await reactor_.sleep_for(std::chrono::milliseconds(100));
  }
}

io::Task<void> Server::serve() {
  for (;;) {
    auto place = co_await places_.acquire(1);
    Result<io::Descriptor> socket = co_await next_client();
    if (!socket) co_return;  // stopped
    serving_.spawn(reactor_, serve_one(std::move(*socket), std::move(place)));
  }
}

io::Task<void> Server::serve_one(io::Descriptor socket, io::AsyncSemaphore::Units place) {
  {
    Connection connection(std::move(socket), *this, log_.log());
    connections_.push_back(&connection);
    if (stopping_) connection.cancel();
    co_await connection.run();
    std::erase(connections_, &connection);
  }
  place.release();
}

Export* Server::find(std::string_view name) const {
  const auto found = std::ranges::find(exports_, name, &Export::name);
  return found == exports_.end() ? nullptr : *found;
}

Result<void> Server::check_free(std::string_view name) const {
  if (find(name) == nullptr) return {};
  return fail(EEXIST, fmt::format("NBD server already has export named '{}'", name));
}

void Server::add(Export& served) {
  PLATTER_ASSERT(find(served.name()) == nullptr);
  exports_.push_back(&served);
}

io::Task<void> Server::remove(Export& served) {
  std::erase(exports_, &served);
  for (Connection* connection : connections_) {
    if (connection->served() == &served) connection->cancel();
  }
  co_await served.clients().close();
}

io::Task<void> Server::stop() {
  stopping_ = true;
  waiting_.cancel();
  for (Connection* connection : connections_) connection->cancel();
  co_await serving_.close();
  if (!options_.path.empty()) unlink(options_.path.c_str());
}

}  // namespace platter::nbd
