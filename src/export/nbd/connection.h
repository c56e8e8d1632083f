// Connection: one client of a server, from its connection to its end. It negotiates on the server's
// reactor, and is served on one of its export's.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "base/log.h"
#include "export/nbd/negotiation.h"
#include "export/nbd/server.h"
#include "io/cancel.h"
#include "io/gate.h"
#include "io/stream.h"

namespace platter::nbd {

class Connection final : private Host {
 public:
  // All outlive it. The socket is connected, and does not block.
  Connection(io::Descriptor socket, Server& server, const base::Log& log);
  ~Connection() override;

  // To its end, whatever the client does; a line in the log where it broke the rules.
  io::Task<void> run();
  // The server's reactor. Ends it soon.
  void cancel();
  // Null: it has none yet.
  const Export* served() const { return served_; }

 private:
  std::vector<Export*> exports() override;
  Export* find(std::string_view name) override;
  Export* claim(std::string_view name) override;
  bool has_tls() const override;
  io::Task<Result<io::Stream*>> start_tls() override;
  bool multi_connection() const override;

  io::Task<Result<void>> serve();
  io::Task<Result<void>> transmit(Agreement agreement);
  io::Task<void> limit_negotiation();
  io::Task<void> cancel_there();

  Server& server_;
  const base::Log& log_;
  io::Reactor& reactor_;  // the server's
  std::unique_ptr<io::Stream> stream_;
  io::SocketStream* plain_;  // it, until TLS begins
  Export* served_ = nullptr;
  io::Gate::Pass claim_;
  io::Reactor* home_ = nullptr;  // while it is served
  io::CancelSource negotiated_;
  bool timed_out_ = false;
  bool cancelled_ = false;
  io::Gate tasks_;
};

}  // namespace platter::nbd
