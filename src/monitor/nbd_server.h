// The NBD server of a daemon: at most one at a time, and the exports that it serves.
//
// One thread: the monitors'.
#pragma once

#include <memory>
#include <vector>

#include "base/log.h"
#include "export/nbd/server.h"
#include "io/reactor.h"
#include "monitor/arguments.h"
#include "monitor/exports.h"
#include "monitor/objects.h"
#include "monitor/socket_address.h"

namespace platter::monitor {

class NbdServer {
 public:
  NbdServer(const Objects& objects, const base::Log& log) : objects_(objects), log_(log) {}
  ~NbdServer();  // stopped
  NbdServer(const NbdServer&) = delete;
  NbdServer& operator=(const NbdServer&) = delete;

  // `options`: of the schema's NbdServerOptions, but for the address. EBUSY: it runs already.
  Result<void> start(const SocketAddress& address, Arguments options);
  Result<void> check_running() const;
  Result<void> check_stopped() const;
  // Its exports have been closed; nothing happens where none runs.
  io::Task<void> stop();

  // An export of type "nbd", whose clients are served on `reactors`.
  io::Task<Result<std::unique_ptr<BlockExport>>> serve(BlockExportOptions options,
                                                       std::vector<io::Reactor*> reactors);

 private:
  const Objects& objects_;
  const base::Log& log_;
  std::unique_ptr<nbd::Server> server_;
};

}  // namespace platter::monitor
