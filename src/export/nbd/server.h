// Server: exports, by their names, to whoever connects to a socket and speaks the NBD protocol.
//
// Threads: all on one reactor, on which it listens and negotiates; clients are served on the
// reactors of their exports.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/log.h"
#include "crypto/tls_credentials.h"
#include "export/limited_log.h"
#include "export/nbd/export.h"
#include "io/async_semaphore.h"
#include "io/descriptor.h"
#include "io/gate.h"
#include "io/task.h"

namespace platter::nbd {

class Connection;

struct ServerOptions {
  io::Descriptor listening{};  // listens, and does not block
  std::string path = {};       // of its socket, absolute, removed at the end; empty: none
  // Others wait until one has gone; 0: any number.
  uint32_t max_connections = 100;
  // Clients have to speak TLS; null: there is none. Any thread.
  std::shared_ptr<const crypto::TlsCredentials> tls = {};
  // Whether the peer of this name (crypto::TlsStream::peer_name) may come in; empty: anybody may.
  std::function<Result<void>(std::string_view name)> authorize = {};
  // For what comes before the first request; zero: as long as it likes.
  io::Nanoseconds negotiation_limit = std::chrono::seconds(10);
};

class Server {
 public:
  // On the current reactor. The log outlives it.
  static std::unique_ptr<Server> start(ServerOptions options, const base::Log& log);
  ~Server();  // stopped
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // EEXIST: there is an export of this name.
  Result<void> check_free(std::string_view name) const;
  // From now on clients may ask for it. Its name is free (asserted).
  void add(Export& served);
  // No more; those it is served to are left, with nothing under way.
  io::Task<void> remove(Export& served);
  Export* find(std::string_view name) const;  // null: there is none
  // In the order in which they came.
  const std::vector<Export*>& exports() const { return exports_; }

  // Takes no more clients and leaves those there are. All exports have been removed.
  io::Task<void> stop();

  const ServerOptions& options() const { return options_; }
  io::Reactor& reactor() const { return reactor_; }

 private:
  Server(ServerOptions options, const base::Log& log);
  io::Task<void> serve();
  io::Task<void> serve_one(io::Descriptor socket, io::AsyncSemaphore::Units place);
  io::Task<Result<io::Descriptor>> next_client();

  const ServerOptions options_;
  io::Reactor& reactor_;
  exports::LimitedLog log_;
  io::DescriptorWait waiting_;
  io::AsyncSemaphore places_;
  std::vector<Export*> exports_;
  std::vector<Connection*> connections_;
  bool stopping_ = false;
  io::Gate serving_;
};

}  // namespace platter::nbd
