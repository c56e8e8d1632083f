#include "monitor/socket_address.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>

#include "base/try.h"
#include "monitor/arguments.h"

namespace platter::monitor {
namespace {

// ---- UNIX

struct UnixName {
  sockaddr_un name = {};
  socklen_t bytes = 0;
  const sockaddr* generic() const { return reinterpret_cast<const sockaddr*>(&name); }
};

// An abstract name begins with a zero byte and is not terminated.
Result<UnixName> make_name(const SocketAddress& address) {
  UnixName made;
  made.name.sun_family = AF_UNIX;
  const size_t skip = address.abstract_name ? 1 : 0;
  if (address.path.size() + 1 > sizeof made.name.sun_path) {
    return fail(EINVAL, fmt::format("UNIX socket path '{}' is too long", address.path));
  }
  std::memcpy(made.name.sun_path + skip, address.path.data(), address.path.size());
  made.bytes = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address.path.size() + 1);
  return made;
}

Result<io::Descriptor> make_unix_socket() {
  io::Descriptor made(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!made) return std::unexpected(Error::from_errno(errno, "Failed to create Unix socket"));
  return made;
}

Result<io::Descriptor> bind_path(const SocketAddress& address) {
  PLATTER_ASSIGN(const UnixName name, make_name(address));
  PLATTER_ASSIGN(io::Descriptor made, make_unix_socket());
  // Of a listener that is no more; a live one loses its name, as it always did. Nothing else does.
  struct stat status{};
  const bool is_socket = !address.abstract_name && lstat(address.path.c_str(), &status) == 0 &&
                         S_ISSOCK(status.st_mode);
  if (is_socket && unlink(address.path.c_str()) != 0 && errno != ENOENT) {
    return std::unexpected(
        Error::from_errno(errno, fmt::format("Failed to unlink socket {}", address.path)));
  }
  if (bind(made.get(), name.generic(), name.bytes) != 0) {
    return std::unexpected(
        Error::from_errno(errno, fmt::format("Failed to bind socket to {}", address.path)));
  }
  return made;
}

Result<io::Descriptor> connect_path(const SocketAddress& address) {
  PLATTER_ASSIGN(const UnixName name, make_name(address));
  PLATTER_ASSIGN(io::Descriptor made, make_unix_socket());
  if (connect(made.get(), name.generic(), name.bytes) != 0) {
    return std::unexpected(
        Error::from_errno(errno, fmt::format("Failed to connect to '{}'", address.path)));
  }
  return made;
}

// ---- TCP

struct FreeAddresses {
  void operator()(addrinfo* list) const { freeaddrinfo(list); }
};
using Addresses = std::unique_ptr<addrinfo, FreeAddresses>;

Result<Addresses> resolve(const SocketAddress& address, bool passive) {
  addrinfo wish = {};
  wish.ai_socktype = SOCK_STREAM;
  wish.ai_flags = passive ? AI_PASSIVE : 0;
  const bool only_4 = address.ipv4.value_or(false) && !address.ipv6.value_or(false);
  const bool only_6 = address.ipv6.value_or(false) && !address.ipv4.value_or(false);
  if (only_4 || (address.ipv6 && !*address.ipv6)) wish.ai_family = AF_INET;
  if (only_6 || (address.ipv4 && !*address.ipv4)) wish.ai_family = AF_INET6;
  addrinfo* found = nullptr;
  const char* host = address.host.empty() ? nullptr : address.host.c_str();
  const int code = getaddrinfo(host, address.port.c_str(), &wish, &found);
  if (code == 0) return Addresses(found);
  return fail(EINVAL, fmt::format("address resolution failed for {}:{}: {}", address.host,
                                  address.port, gai_strerror(code)));
}

// The first of the host's addresses with which `use` succeeds.
template <typename Use>
Result<io::Descriptor> try_each(const SocketAddress& address, bool passive, std::string_view what,
                                Use use) {
  PLATTER_ASSIGN(const Addresses found, resolve(address, passive));
  int code = EADDRNOTAVAIL;
  for (const addrinfo* one = found.get(); one != nullptr; one = one->ai_next) {
    io::Descriptor made(socket(one->ai_family, one->ai_socktype | SOCK_CLOEXEC, one->ai_protocol));
    if (made && use(made.get(), *one)) return made;
    code = errno;
  }
  return std::unexpected(Error::from_errno(
      code, fmt::format("Failed to {} '{}:{}'", what, address.host, address.port)));
}

Result<io::Descriptor> bind_this_port(const SocketAddress& address) {
  return try_each(address, true, "bind socket to", [](int descriptor, const addrinfo& one) {
    const int on = 1;
    // Best effort: a port whose last connection has just ended is refused for a while.
    (void)setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (one.ai_family == AF_INET6 &&
        setsockopt(descriptor, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) != 0)
      return false;
    return bind(descriptor, one.ai_addr, one.ai_addrlen) == 0;
  });
}

// The first port that is free, up to the last one that may be.
Result<io::Descriptor> bind_port(SocketAddress address) {
  for (;;) {
    auto made = bind_this_port(address);
    if (made || made.error().code() != EADDRINUSE) return made;
    unsigned port = 0;
    const char* end = address.port.data() + address.port.size();
    const auto [stop, code] = std::from_chars(address.port.data(), end, port);
    if (code != std::errc() || stop != end || port >= address.last_port) return made;
    address.port = std::to_string(port + 1);
  }
}

Result<io::Descriptor> connect_port(const SocketAddress& address) {
  return try_each(address, false, "connect to", [](int descriptor, const addrinfo& one) {
    return connect(descriptor, one.ai_addr, one.ai_addrlen) == 0;
  });
}

std::string describe_port(const SocketAddress& address, int descriptor) {
  sockaddr_storage name = {};
  socklen_t bytes = sizeof name;
  char host[NI_MAXHOST], port[NI_MAXSERV];
  const auto* generic = reinterpret_cast<const sockaddr*>(&name);
  const bool known = getsockname(descriptor, reinterpret_cast<sockaddr*>(&name), &bytes) == 0 &&
                     getnameinfo(generic, bytes, host, sizeof host, port, sizeof port,
                                 NI_NUMERICHOST | NI_NUMERICSERV) == 0;
  if (!known) return fmt::format("tcp:{}:{}", address.host, address.port);
  return name.ss_family == AF_INET6 ? fmt::format("tcp:[{}]:{}", host, port)
                                    : fmt::format("tcp:{}:{}", host, port);
}

Result<SocketAddress> read_address(const std::string& type, const Arguments& data) {
  SocketAddress address;
  if (type == "unix") {
    address.path = data.text("path");
    address.abstract_name = data.flag("abstract");
  } else if (type == "inet") {
    address.kind = SocketAddress::Kind::kInet;
    address.host = data.text("host");
    address.port = data.text("port");
    address.last_port = static_cast<unsigned>(data.natural("to", 0));
    if (data.has("ipv4")) address.ipv4 = data.flag("ipv4");
    if (data.has("ipv6")) address.ipv6 = data.flag("ipv6");
  } else if (type == "fd") {
    address.kind = SocketAddress::Kind::kDescriptor;
    address.descriptor = data.text("str");
  } else {
    return fail(
        ENOTSUP,
        fmt::format("Sockets of type '{}' are not supported: use 'unix', 'inet' or 'fd'", type));
  }
  return address;
}

}  // namespace

Result<SocketAddress> SocketAddress::from_json(const base::Json& json) {
  const Arguments given(json);
  return read_address(given.text("type"), given);
}

Result<SocketAddress> SocketAddress::from_legacy_json(const base::Json& json) {
  const Arguments given(json);
  return read_address(given.text("type"), given.object("data"));
}

Result<io::Descriptor> listen_at(const SocketAddress& address, int backlog) {
  io::Descriptor made;
  switch (address.kind) {
    case SocketAddress::Kind::kUnix: {
      PLATTER_ASSIGN(made, bind_path(address));
      break;
    }
    case SocketAddress::Kind::kInet: {
      PLATTER_ASSIGN(made, bind_port(address));
      break;
    }
    case SocketAddress::Kind::kDescriptor: return inherited_socket(address.descriptor);
  }
  if (listen(made.get(), backlog) != 0)
    return std::unexpected(Error::from_errno(errno, "Failed to listen on socket"));
  return made;
}

Result<io::Descriptor> connect_to(const SocketAddress& address) {
  switch (address.kind) {
    case SocketAddress::Kind::kUnix: return connect_path(address);
    case SocketAddress::Kind::kInet: return connect_port(address);
    case SocketAddress::Kind::kDescriptor: break;
  }
  return inherited_socket(address.descriptor);
}

std::string describe(const SocketAddress& address, int descriptor) {
  return address.kind == SocketAddress::Kind::kInet ? describe_port(address, descriptor)
                                                    : "unix:" + address.path;
}

Result<io::Descriptor> inherited_socket(const std::string& text) {
  int descriptor = -1;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), descriptor);
  if (code != std::errc() || end != text.data() + text.size())
    return fail(EINVAL, "Unable to parse FD number " + text);
  int type = 0;
  socklen_t bytes = sizeof type;
  if (descriptor <= 2 || getsockopt(descriptor, SOL_SOCKET, SO_TYPE, &type, &bytes) != 0)
    return fail(EINVAL, fmt::format("File descriptor '{}' is not a socket", text));
  return io::Descriptor(descriptor);
}

Result<void> stop_blocking(int descriptor) {
  const int flags = fcntl(descriptor, F_GETFL);
  if (flags < 0 || fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) != 0)
    return std::unexpected(Error::from_errno(errno, "Could not set up a socket"));
  return {};
}

}  // namespace platter::monitor
