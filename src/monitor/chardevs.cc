#include "monitor/chardevs.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "base/options.h"
#include "base/try.h"

namespace platter::monitor {
namespace {

using base::Json;

struct Address {
  sockaddr_un name = {};
  socklen_t bytes = 0;
};

// An abstract name begins with a zero byte and is not terminated.
Result<Address> make_address(const std::string& path, bool abstract_name) {
  Address address;
  address.name.sun_family = AF_UNIX;
  const size_t skip = abstract_name ? 1 : 0;
  if (path.size() + 1 > sizeof address.name.sun_path) {
    return fail(EINVAL, fmt::format("UNIX socket path '{}' is too long", path));
  }
  std::memcpy(address.name.sun_path + skip, path.data(), path.size());
  address.bytes = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + 1);
  return address;
}

Result<io::Descriptor> make_socket() {
  io::Descriptor made(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!made) return std::unexpected(Error::from_errno(errno, "Failed to create Unix socket"));
  return made;
}

const sockaddr* generic(const Address& address) {
  return reinterpret_cast<const sockaddr*>(&address.name);
}

Result<io::Descriptor> listen_at(const std::string& path, bool abstract_name) {
  PLATTER_ASSIGN(const Address address, make_address(path, abstract_name));
  PLATTER_ASSIGN(io::Descriptor made, make_socket());
  // Of a listener that is no more; a live one loses its name, as it always did.
  if (!abstract_name && unlink(path.c_str()) != 0 && errno != ENOENT) {
    return std::unexpected(
        Error::from_errno(errno, fmt::format("Failed to unlink socket {}", path)));
  }
  if (bind(made.get(), generic(address), address.bytes) != 0) {
    return std::unexpected(
        Error::from_errno(errno, fmt::format("Failed to bind socket to {}", path)));
  }
  if (listen(made.get(), 1) != 0)
    return std::unexpected(Error::from_errno(errno, "Failed to listen on socket"));
  return made;
}

Result<io::Descriptor> connect_to(const std::string& path, bool abstract_name) {
  PLATTER_ASSIGN(const Address address, make_address(path, abstract_name));
  PLATTER_ASSIGN(io::Descriptor made, make_socket());
  if (connect(made.get(), generic(address), address.bytes) != 0) {
    return std::unexpected(
        Error::from_errno(errno, fmt::format("Failed to connect to '{}'", path)));
  }
  return made;
}

template <typename All>
auto position_of(All& all, std::string_view id) {
  return std::ranges::find_if(all, [id](const auto& one) { return one->id == id; });
}

bool says_on(const base::Options& options, std::string_view key, bool fallback) {
  const auto text = options.find_string(key);
  return text ? *text == "on" || *text == "yes" || *text == "true" : fallback;
}

}  // namespace

Result<void> stop_blocking(int descriptor) {
  const int flags = fcntl(descriptor, F_GETFL);
  if (flags < 0 || fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) != 0)
    return std::unexpected(Error::from_errno(errno, "Could not set up a socket"));
  return {};
}

Result<io::Descriptor> inherited_socket(const std::string& text) {
  int descriptor = -1;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), descriptor);
  int type = 0;
  socklen_t bytes = sizeof type;
  if (code != std::errc() || end != text.data() + text.size() || descriptor <= 2 ||
      getsockopt(descriptor, SOL_SOCKET, SO_TYPE, &type, &bytes) != 0) {
    return fail(EINVAL, fmt::format("File descriptor '{}' is not a socket", text));
  }
  return io::Descriptor(descriptor);
}

Chardev::~Chardev() {
  if (unlinks) unlink(path.c_str());
}

Result<void> Chardevs::open_socket(Chardev& chardev, const SocketWish& wish) {
  chardev.path = wish.path;
  chardev.abstract_name = wish.abstract_name;
  if (!wish.server) {
    if (wish.descriptor.empty()) {
      PLATTER_ASSIGN(chardev.connection, connect_to(wish.path, wish.abstract_name));
    } else {
      PLATTER_ASSIGN(chardev.connection, inherited_socket(wish.descriptor));
    }
    return {};
  }
  if (wish.descriptor.empty()) {
    PLATTER_ASSIGN(chardev.listener, listen_at(wish.path, wish.abstract_name));
    chardev.unlinks = !wish.abstract_name;
  } else {
    PLATTER_ASSIGN(chardev.listener, inherited_socket(wish.descriptor));
  }
  if (wish.wait) {
    chardev.connection.reset(accept4(chardev.listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!chardev.connection)
      return std::unexpected(Error::from_errno(errno, "Failed to accept a connection"));
  }
  return stop_blocking(chardev.listener.get());
}

bool Chardevs::has_stdio() const {
  return std::ranges::any_of(all_,
                             [](const auto& one) { return one->kind == Chardev::Kind::kStdio; });
}

Result<void> Chardevs::add(std::string id, Chardev::Kind kind, const SocketWish& wish) {
  if (position_of(all_, id) != all_.end())
    return fail(EEXIST, fmt::format("Chardev with id '{}' already exists", id));
  if (kind == Chardev::Kind::kStdio && has_stdio())
    return fail(EBUSY, "cannot use stdio by multiple character devices");
  auto made = std::make_unique<Chardev>();
  made->id = std::move(id);
  made->kind = kind;
  if (kind == Chardev::Kind::kSocket) PLATTER_TRY(open_socket(*made, wish));
  all_.push_back(std::move(made));
  return {};
}

// ---- As the command line has it

Result<void> Chardevs::add(std::string_view definition) {
  PLATTER_ASSIGN(base::Options options, base::Options::from_key_values(definition, "backend"));
  const auto backend = options.find_string("backend");
  if (!backend) return fail(EINVAL, "chardev: \"\" missing backend");
  const auto id = options.find_string("id");
  if (!id) return fail(EINVAL, "chardev: no id specified");
  options.erase("backend");
  options.erase("id");
  if (*backend == "null" || *backend == "stdio") {
    options.erase("signal");
    if (!options.empty())
      return fail(EINVAL, fmt::format("Invalid parameter '{}'", options.entries().front().first));
    return add(*id, *backend == "null" ? Chardev::Kind::kNull : Chardev::Kind::kStdio, {});
  }
  if (*backend != "socket")
    return fail(EINVAL, fmt::format("'{}' is not a valid char driver name", *backend));
  SocketWish wish{.path = options.find_string("path").value_or(""),
                  .descriptor = options.find_string("fd").value_or(""),
                  .abstract_name = says_on(options, "abstract", false),
                  .server = says_on(options, "server", false)};
  wish.wait = says_on(options, "wait", wish.server);
  for (const auto* known : {"path", "fd", "abstract", "server", "wait"}) options.erase(known);
  if (!options.empty())
    return fail(EINVAL, fmt::format("Invalid parameter '{}'", options.entries().front().first));
  if (wish.path.empty() == wish.descriptor.empty())
    return fail(EINVAL, "chardev: socket: needs one of 'path' and 'fd'");
  if (!wish.server && wish.wait)
    return fail(EINVAL, "'wait' option is incompatible with socket in client connect mode");
  return add(*id, Chardev::Kind::kSocket, wish);
}

// ---- As a client has it

Result<Chardevs::SocketWish> Chardevs::parse_socket(const Json& data) {
  const Arguments given(data);
  SocketWish wish{.path = {}, .descriptor = {}, .server = given.flag("server", true)};
  const Arguments address = given.object("addr");
  const Arguments of_type = address.object("data");
  if (address.text("type") == "unix") {
    wish.path = of_type.text("path");
    wish.abstract_name = of_type.flag("abstract");
  } else if (address.text("type") == "fd") {
    wish.descriptor = of_type.text("str");
  } else {
    return fail(ENOTSUP, fmt::format("Sockets of type '{}' are not supported: use 'unix' or 'fd'",
                                     address.text("type")));
  }
  for (const auto* missing : {"tls-creds", "tls-authz", "telnet", "tn3270", "websocket"}) {
    if (!given.has(missing)) continue;
    if (const bool* flag = given.at(missing).get_if<bool>(); flag != nullptr && !*flag) continue;
    return fail(ENOTSUP, fmt::format("'{}' is not supported", missing));
  }
  if (wish.server && given.has("reconnect") && given.integer("reconnect") != 0) {
    return fail(EINVAL, "'reconnect' option is incompatible with socket in server listen mode");
  }
  if (!wish.server && given.has("wait"))
    return fail(EINVAL, "'wait' option is incompatible with socket in client connect mode");
  // Whoever asks has no time to wait: everybody else would wait with them.
  wish.wait = given.flag("wait");
  if (wish.wait) return fail(ENOTSUP, "'wait' is not supported here");
  return wish;
}

Result<void> Chardevs::add(std::string id, Json backend) {
  const Arguments given(backend);
  const std::string& type = given.text("type");
  auto in_words = [&id](Error error) {
    return std::unexpected(
        std::move(error).with_context(fmt::format("Failed to add chardev '{}'", id)));
  };
  SocketWish wish;
  Chardev::Kind kind = type == "null" ? Chardev::Kind::kNull : Chardev::Kind::kStdio;
  if (type == "socket") {
    kind = Chardev::Kind::kSocket;
    auto parsed = parse_socket(given.at("data"));
    if (!parsed) return in_words(std::move(parsed).error());
    wish = std::move(*parsed);
  }
  auto added = add(id, kind, wish);
  if (!added && added.error().code() != EEXIST) return in_words(std::move(added).error());
  return added;
}

Result<void> Chardevs::change(std::string id, Json backend) {
  const auto found = position_of(all_, id);
  if (found == all_.end()) return fail(ENOENT, fmt::format("Chardev '{}' does not exist", id));
  if ((*found)->taken) return fail(EBUSY, "Chardev user does not support chardev hotswap");
  std::unique_ptr<Chardev> before = std::move(*found);
  all_.erase(found);
  auto changed = add(id, std::move(backend));
  if (!changed) {
    all_.push_back(std::move(before));
    return changed;
  }
  // The new one's file, if it has taken the place of the old one's.
  if (before->path == all_.back()->path) before->unlinks = false;
  return {};
}

Result<void> Chardevs::remove(std::string id) {
  const auto found = position_of(all_, id);
  if (found == all_.end()) return fail(ENOENT, fmt::format("Chardev '{}' not found", id));
  if ((*found)->taken) return fail(EBUSY, fmt::format("Chardev '{}' is busy", id));
  all_.erase(found);
  return {};
}

Json Chardevs::list() const {
  Json list = Json::array();
  for (const auto& one : all_) {
    std::string filename = one->kind == Chardev::Kind::kNull ? "null" : "stdio";
    if (one->kind == Chardev::Kind::kSocket) {
      const bool listens = static_cast<bool>(one->listener);
      const bool connected = one->has_client || one->connection;
      filename = fmt::format("{}unix:{}{}", connected ? "" : "disconnected:", one->path,
                             listens ? ",server=on" : "");
    }
    Json& described = list.append(Json::object());
    described.add("frontend-open", one->taken);
    described.add("filename", std::move(filename));
    described.add("label", one->id);
  }
  return list;
}

Result<Chardev*> Chardevs::take(std::string_view id) {
  const auto found = position_of(all_, id);
  if (found == all_.end()) return fail(ENOENT, fmt::format("chardev \"{}\" not found", id));
  if ((*found)->taken) return fail(EBUSY, fmt::format("Device '{}' is in use", id));
  (*found)->taken = true;
  return found->get();
}

}  // namespace platter::monitor
