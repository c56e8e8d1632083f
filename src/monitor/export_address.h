// Where a vhost-user device is to be served, as the schema's SocketAddress says it.
#pragma once

#include "export/vhost_user/export.h"
#include "monitor/arguments.h"

namespace platter::monitor {

// Fills the path, or the socket that listens.
Result<void> read_address(const Arguments& address, vhost_user::Options& options);

}  // namespace platter::monitor
