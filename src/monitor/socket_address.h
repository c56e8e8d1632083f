// Sockets of character devices: by a path, a host and a port, or a number that somebody else has
// opened.
#pragma once

#include <optional>
#include <string>

#include "base/json.h"
#include "io/descriptor.h"
#include "platter/error.h"

namespace platter::monitor {

struct SocketAddress {
  enum class Kind { kUnix, kInet, kDescriptor };

  Kind kind = Kind::kUnix;
  std::string path;            // kUnix
  bool abstract_name = false;  // kUnix: the path is no file
  std::string host, port;      // kInet
  unsigned last_port = 0;      // kInet, of a listener: the ports up to this one are tried
  std::optional<bool> ipv4, ipv6;
  std::string descriptor;  // kDescriptor

  // Of the schema's SocketAddress. ENOTSUP: of a kind that is not here.
  static Result<SocketAddress> from_json(const base::Json& address);
  // Of its SocketAddressLegacy.
  static Result<SocketAddress> from_legacy_json(const base::Json& address);
};

// `backlog`: how many may have connected and wait.
Result<io::Descriptor> listen_at(const SocketAddress& address, int backlog = 1);
Result<io::Descriptor> connect_to(const SocketAddress& address);
// As query-chardev has it: "unix:PATH", "tcp:127.0.0.1:4444".
std::string describe(const SocketAddress& address, int descriptor);

// A socket that somebody else has opened for us, by its number.
Result<io::Descriptor> inherited_socket(const std::string& text);
// What waits for it from now on is told that it would have to.
Result<void> stop_blocking(int descriptor);

}  // namespace platter::monitor
