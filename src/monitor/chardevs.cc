#include "monitor/chardevs.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <iterator>

#include "base/absolute_path.h"
#include "base/assert.h"
#include "base/options.h"
#include "base/size.h"
#include "base/try.h"
#include "monitor/objects.h"

namespace platter::monitor {
namespace {

using base::Json;

constexpr uint64_t kDefaultRingBytes = 65536;

template <typename All>
auto position_of(All& all, std::string_view id) {
  return std::ranges::find_if(all, [id](const auto& one) { return one->id == id; });
}

Result<io::Descriptor> open_path(const std::string& path, int flags) {
  io::Descriptor opened(open(path.c_str(), flags | O_CLOEXEC | O_NONBLOCK, 0666));
  if (opened) return opened;
  return std::unexpected(Error::from_errno(errno, fmt::format("Could not open '{}'", path)));
}

Chardev::Kind kind_of(std::string_view type) {
  constexpr std::pair<std::string_view, Chardev::Kind> kKinds[] = {
      {"null", Chardev::Kind::kNull},     {"stdio", Chardev::Kind::kStdio},
      {"socket", Chardev::Kind::kSocket}, {"pipe", Chardev::Kind::kPipe},
      {"file", Chardev::Kind::kFile},     {"ringbuf", Chardev::Kind::kRing},
      {"memory", Chardev::Kind::kRing}};
  for (const auto& [name, kind] : kKinds) {
    if (name == type) return kind;
  }
  return Chardev::Kind::kNull;
}

}  // namespace

Chardev::~Chardev() {
  if (!socket_file.empty()) unlink(socket_file.c_str());
}

// ---- Making one

Chardevs::Chardevs() : given_up_(eventfd(0, EFD_CLOEXEC)) { PLATTER_ASSERT(given_up_); }

void Chardevs::give_up_waiting() {
  const uint64_t one = 1;
  PLATTER_ASSERT(write(given_up_.get(), &one, sizeof one) == sizeof one);
}

Result<io::Descriptor> Chardevs::wait_for_client(const io::Descriptor& listener) const {
  pollfd ready[] = {{listener.get(), POLLIN, 0}, {given_up_.get(), POLLIN, 0}};
  while (poll(ready, std::size(ready), -1) < 0) {
    if (errno != EINTR)
      return std::unexpected(Error::from_errno(errno, "Failed to wait for a connection"));
  }
  if (ready[1].revents != 0) return fail(ECANCELED, "Interrupted before anybody connected");
  io::Descriptor client(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!client) return std::unexpected(Error::from_errno(errno, "Failed to accept a connection"));
  return client;
}

Result<void> Chardevs::open_socket(Chardev& chardev, const Wish& wish) const {
  chardev.address = wish.address;
  if (!wish.server) {
    PLATTER_ASSIGN(chardev.connection, connect_to(wish.address));
    return {};
  }
  std::string file;
  if (wish.address.kind == SocketAddress::Kind::kUnix && !wish.address.abstract_name) {
    PLATTER_ASSIGN(file, base::absolute_path(wish.address.path));
  }
  PLATTER_ASSIGN(chardev.listener, listen_at(wish.address));
  chardev.socket_file = std::move(file);
  if (wish.wait) {
    PLATTER_ASSIGN(chardev.connection, wait_for_client(chardev.listener));
  }
  return stop_blocking(chardev.listener.get());
}

// Two, PATH.in and PATH.out, or one for both ways.
Result<void> Chardevs::open_pipe(Chardev& chardev, const Wish& wish) {
  auto in = open_path(wish.path + ".in", O_RDWR);
  auto out = open_path(wish.path + ".out", O_RDWR);
  if (in && out) {
    chardev.input = std::move(*in);
    chardev.output = std::move(*out);
    return {};
  }
  PLATTER_ASSIGN(chardev.input, open_path(wish.path, O_RDWR));
  PLATTER_ASSIGN(chardev.output, open_path(wish.path, O_RDWR));
  return {};
}

Result<void> Chardevs::open_file(Chardev& chardev, const Wish& wish) {
  const int how = wish.append ? O_APPEND : O_TRUNC;
  PLATTER_ASSIGN(chardev.output, open_path(wish.path, O_WRONLY | O_CREAT | how));
  if (wish.input_path.empty()) return {};
  PLATTER_ASSIGN(chardev.input, open_path(wish.input_path, O_RDONLY));
  return {};
}

Result<void> Chardevs::make_ring(Chardev& chardev, const Wish& wish) {
  const uint64_t bytes = wish.ring_bytes != 0 ? wish.ring_bytes : kDefaultRingBytes;
  if ((bytes & (bytes - 1)) != 0)
    return fail(EINVAL, "size of ringbuf chardev must be power of two");
  if (bytes > kMaxRingBytes)
    return fail(EINVAL, fmt::format("size of ringbuf chardev must be at most {}", kMaxRingBytes));
  chardev.ring.emplace(bytes);
  return {};
}

bool Chardevs::has_stdio() const {
  return std::ranges::any_of(all_,
                             [](const auto& one) { return one->kind == Chardev::Kind::kStdio; });
}

Result<void> Chardevs::add(std::string id, const Wish& wish) {
  auto made = std::make_unique<Chardev>();
  made->id = std::move(id);
  made->kind = kind_of(wish.type);
  made->type = wish.type;
  switch (made->kind) {
    case Chardev::Kind::kNull: break;
    case Chardev::Kind::kStdio:
      if (has_stdio()) return fail(EBUSY, "cannot use stdio by multiple character devices");
      break;
    case Chardev::Kind::kSocket: PLATTER_TRY(open_socket(*made, wish)); break;
    case Chardev::Kind::kPipe: PLATTER_TRY(open_pipe(*made, wish)); break;
    case Chardev::Kind::kFile: PLATTER_TRY(open_file(*made, wish)); break;
    case Chardev::Kind::kRing: PLATTER_TRY(make_ring(*made, wish)); break;
  }
  all_.push_back(std::move(made));
  return {};
}

// ---- As the command line has it

namespace {

// The words of a --chardev, taken out one by one.
class Words {
 public:
  explicit Words(base::Options options) : options_(std::move(options)) {}

  std::string take(std::string_view name) {
    const auto text = options_.find_string(name);
    options_.erase(name);
    return text.value_or("");
  }
  Result<bool> take_flag(std::string_view name, bool fallback) {
    const std::string text = take(name);
    if (text.empty()) return fallback;
    if (text == "on" || text == "yes" || text == "true") return true;
    if (text == "off" || text == "no" || text == "false") return false;
    return fail(EINVAL, fmt::format("Parameter '{}' expects 'on' or 'off'", name));
  }
  bool has(std::string_view name) const { return options_.find(name) != nullptr; }
  Result<void> check_empty() const {
    if (options_.empty()) return {};
    return fail(EINVAL, fmt::format("Invalid parameter '{}'", options_.entries().front().first));
  }

 private:
  base::Options options_;
};

// Whoever names one of these wants it: to do without is no answer.
Result<void> check_socket_extras(Words& words) {
  for (const auto* missing : {"tls-creds", "tls-authz"}) {
    if (words.has(missing)) return fail(ENOTSUP, fmt::format("'{}' is not supported", missing));
  }
  for (const auto* missing : {"telnet", "tn3270", "websocket", "mux"}) {
    PLATTER_ASSIGN(const bool on, words.take_flag(missing, false));
    if (on) return fail(ENOTSUP, fmt::format("'{}' is not supported", missing));
  }
  return {};
}

Result<SocketAddress> take_address(Words& words) {
  const int named = words.has("path") + words.has("fd") + words.has("host");
  if (named > 1) return fail(EINVAL, "None or one of 'path', 'fd' or 'host' option required.");
  SocketAddress address;
  address.path = words.take("path");
  address.descriptor = words.take("fd");
  address.host = words.take("host");
  address.port = words.take("port");
  PLATTER_ASSIGN(address.abstract_name, words.take_flag("abstract", false));
  PLATTER_TRY(words.take_flag("tight", true));
  PLATTER_TRY(words.take_flag("nodelay", false));
  if (words.has("ipv4")) {
    PLATTER_ASSIGN(address.ipv4, words.take_flag("ipv4", true));
  }
  if (words.has("ipv6")) {
    PLATTER_ASSIGN(address.ipv6, words.take_flag("ipv6", true));
  }
  if (!address.path.empty()) return address;
  if (address.host.empty() && address.port.empty()) {
    address.kind = SocketAddress::Kind::kDescriptor;
    return address;
  }
  if (address.port.empty()) return fail(EINVAL, "chardev: socket: no port given");
  address.kind = SocketAddress::Kind::kInet;
  return address;
}

}  // namespace

Result<void> Chardevs::add(std::string_view definition) {
  PLATTER_ASSIGN(base::Options options, base::Options::from_key_values(definition, "backend"));
  Words words(std::move(options));
  Wish wish;
  wish.type = words.take("backend");
  const bool has_id = words.has("id");
  const std::string id = words.take("id");
  if (!has_id) return fail(EINVAL, "chardev: no id specified");
  PLATTER_TRY(check_identifier(id));
  if (wish.type.empty()) return fail(EINVAL, "chardev: \"\" missing backend");
  constexpr std::string_view kElsewhere[] = {"mux", "parallel", "pty", "serial", "udp"};
  if (std::ranges::find(kElsewhere, wish.type) != std::end(kElsewhere)) {
    return fail(ENOTSUP, fmt::format("character devices of type '{}' are not supported here: use "
                                     "socket, pipe, file, stdio, ringbuf or null",
                                     wish.type));
  }
  if (wish.type != "null" && kind_of(wish.type) == Chardev::Kind::kNull)
    return fail(EINVAL, fmt::format("'{}' is not a valid char driver name", wish.type));
  PLATTER_TRY(words.take_flag("signal", true));
  PLATTER_TRY(check_socket_extras(words));
  if (wish.type == "socket") {
    PLATTER_ASSIGN(wish.address, take_address(words));
    PLATTER_ASSIGN(wish.server, words.take_flag("server", false));
    PLATTER_ASSIGN(wish.wait, words.take_flag("wait", wish.server));
    const std::string reconnect = words.take("reconnect");
    if (wish.server && !reconnect.empty() && reconnect != "0") {
      return fail(EINVAL, "'reconnect' option is incompatible with socket in server listen mode");
    }
  }
  if (wish.type == "pipe" || wish.type == "file") {
    wish.path = words.take("path");
    wish.input_path = words.take("input-path");
    PLATTER_ASSIGN(wish.append, words.take_flag("append", false));
    if (wish.path.empty()) {
      return fail(EINVAL, wish.type == "pipe" ? "chardev: pipe: no device path given"
                                              : "chardev: file: no filename given");
    }
  }
  if (words.has("size")) {
    auto size = base::parse_size(words.take("size"));
    if (!size) return fail(EINVAL, "Parameter 'size' expects a non-negative number below 2^64");
    wish.ring_bytes = *size;
  }
  PLATTER_TRY(words.check_empty());
  if (!wish.server && wish.wait)
    return fail(EINVAL, "'wait' option is incompatible with socket in client connect mode");
  if (has(id)) {
    return fail(EEXIST, fmt::format("attempt to add duplicate property '{}' to object (type "
                                    "'container')",
                                    id));
  }
  return add(id, wish);
}

std::string chardev_help(std::string_view definition) {
  const auto first = definition.substr(0, definition.find(','));
  if (first != "help" && first != "?") return {};
  return "Available chardev backend types: \n  file\n  memory\n  null\n  pipe\n  ringbuf\n  "
         "socket\n"
         "  stdio\n";
}

// ---- As a client has it

Result<void> Chardevs::parse_socket(const Json& data, Wish& wish) {
  const Arguments given(data);
  wish.server = given.flag("server", true);
  PLATTER_ASSIGN(wish.address, SocketAddress::from_legacy_json(given.at("addr")));
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
  return {};
}

Result<Chardevs::Wish> Chardevs::parse(const Json& backend) {
  Wish wish;
  wish.type = Arguments(backend).text("type");
  const Json& data = Arguments(backend).at("data");
  const Arguments given(data);
  if (given.has("logfile")) return fail(ENOTSUP, "'logfile' is not supported");
  switch (kind_of(wish.type)) {
    case Chardev::Kind::kNull:
    case Chardev::Kind::kStdio: break;
    case Chardev::Kind::kSocket: PLATTER_TRY(parse_socket(data, wish)); break;
    case Chardev::Kind::kPipe: wish.path = given.text("device"); break;
    case Chardev::Kind::kFile:
      wish.path = given.text("out");
      wish.input_path = given.text_or_empty("in");
      wish.append = given.flag("append");
      break;
    case Chardev::Kind::kRing: wish.ring_bytes = given.natural("size", 0); break;
  }
  return wish;
}

Result<void> Chardevs::add(std::string id, Json backend) {
  if (has(id)) return fail(EEXIST, fmt::format("Chardev with id '{}' already exists", id));
  auto make = [&]() -> Result<void> {
    PLATTER_ASSIGN(const Wish wish, parse(backend));
    return add(id, wish);
  };
  Result<void> made = make();
  if (!made) made.error().add_context(fmt::format("Failed to add chardev '{}'", id));
  return made;
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
  if (before->socket_file == all_.back()->socket_file) before->socket_file.clear();
  return {};
}

Result<void> Chardevs::remove(std::string id) {
  const auto found = position_of(all_, id);
  if (found == all_.end()) return fail(ENOENT, fmt::format("Chardev '{}' not found", id));
  if ((*found)->taken) return fail(EBUSY, fmt::format("Chardev '{}' is busy", id));
  all_.erase(found);
  return {};
}

// ---- What there is

static std::string shown_name(const Chardev& chardev) {
  if (chardev.kind != Chardev::Kind::kSocket) return chardev.type;
  const bool listens = static_cast<bool>(chardev.listener);
  const bool connected = chardev.has_client || chardev.connection;
  return fmt::format(
      "{}{}{}", connected ? "" : "disconnected:",
      describe(chardev.address, (listens ? chardev.listener : chardev.connection).get()),
      listens ? ",server=on" : "");
}

Json Chardevs::list() const {
  Json list = Json::array();
  for (const auto& one : all_) {
    Json& described = list.append(Json::object());
    described.add("frontend-open", one->taken);
    described.add("filename", shown_name(*one));
    described.add("label", one->id);
  }
  return list;
}

bool Chardevs::has(std::string_view id) const { return position_of(all_, id) != all_.end(); }

std::expected<RingBuffer*, Failure> Chardevs::ring(std::string_view id) {
  const auto found = position_of(all_, id);
  if (found == all_.end()) return refuse(fmt::format("Device '{}' not found", id));
  if (!(*found)->ring) return refuse(fmt::format("{} is not a ringbuf device", id));
  return &*(*found)->ring;
}

Result<Chardev*> Chardevs::take(std::string_view id) {
  const auto found = position_of(all_, id);
  if (found == all_.end()) return fail(ENOENT, fmt::format("chardev \"{}\" not found", id));
  if ((*found)->taken) return fail(EBUSY, fmt::format("Device '{}' is in use", id));
  (*found)->taken = true;
  return found->get();
}

}  // namespace platter::monitor
