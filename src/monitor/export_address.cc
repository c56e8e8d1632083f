#include "monitor/export_address.h"

#include <cerrno>

#include "base/try.h"
#include "monitor/socket_address.h"

namespace platter::monitor {

Result<void> read_address(const Arguments& address, vhost_user::Options& options) {
  if (address.text("type") == "unix") {
    options.path = address.text("path");
    if (!address.flag("abstract")) return {};
    return fail(ENOTSUP, "An export's socket has a path: it cannot be abstract");
  }
  if (address.text("type") == "fd") {
    PLATTER_ASSIGN(options.listening, inherited_socket(address.text("str")));
    return stop_blocking(options.listening.get());
  }
  return fail(EINVAL, "Only socket address types 'unix' and 'fd' are supported");
}

}  // namespace platter::monitor
