// Commands about character devices.
#include <fmt/format.h>

#include "base/try.h"
#include "monitor/base64.h"
#include "monitor/commands.h"

namespace platter::monitor {
namespace {

using base::Json;

io::Task<Reply> query_chardev(Control& control, Arguments) {
  return ready(control.chardevs() == nullptr ? Json::array() : control.chardevs()->list());
}

io::Task<Reply> query_chardev_backends(Control& control, Arguments) {
  Json list = Json::array();
  for (const EnumValue& kind : control.schema().find_type("ChardevBackendKind")->values)
    list.append(Json::object()).add("name", kind.name);
  return ready(std::move(list));
}

io::Task<Reply> chardev_add(Control& control, Arguments arguments) {
  if (control.chardevs() == nullptr) return ready(refuse("Character devices cannot be added here"));
  auto added = control.chardevs()->add(arguments.text("id"), arguments.at("backend"));
  if (!added) return ready(std::unexpected(Failure(added.error())));
  return ready(done());
}

io::Task<Reply> chardev_change(Control& control, Arguments arguments) {
  const std::string& id = arguments.text("id");
  if (control.chardevs() == nullptr)
    return ready(refuse(fmt::format("Chardev '{}' does not exist", id)));
  auto changed = control.chardevs()->change(id, arguments.at("backend"));
  if (!changed) return ready(std::unexpected(Failure(changed.error())));
  return ready(done());
}

io::Task<Reply> chardev_remove(Control& control, Arguments arguments) {
  const std::string& id = arguments.text("id");
  if (control.chardevs() == nullptr)
    return ready(refuse(fmt::format("Chardev '{}' not found", id)));
  auto removed = control.chardevs()->remove(id);
  if (!removed) return ready(std::unexpected(Failure(removed.error())));
  return ready(done());
}

// ---- Those with content

std::expected<RingBuffer*, Failure> find_ring(Control& control, const std::string& id) {
  if (control.chardevs() == nullptr) return refuse(fmt::format("Device '{}' not found", id));
  return control.chardevs()->ring(id);
}

bool is_base64(const Arguments& arguments) { return arguments.text_or_empty("format") == "base64"; }

Reply write_ring(Control& control, Arguments arguments) {
  PLATTER_ASSIGN(RingBuffer * ring, find_ring(control, arguments.text("device")));
  const std::string& data = arguments.text("data");
  if (is_base64(arguments)) {
    PLATTER_ASSIGN(const auto bytes, decode_base64(data));
    ring->write(bytes.span());
  } else {
    ring->write({reinterpret_cast<const uint8_t*>(data.data()), data.size()});
  }
  return done();
}

// As text it ends with its first NUL, and what is not UTF-8 is sent as U+FFFD.
Reply read_ring(Control& control, Arguments arguments) {
  PLATTER_ASSIGN(RingBuffer * ring, find_ring(control, arguments.text("device")));
  const int64_t size = arguments.integer("size");
  if (size <= 0) return refuse("size must be greater than zero");
  const std::string taken = ring->read(static_cast<uint64_t>(size));
  if (is_base64(arguments)) return Json(encode_base64(taken));
  return Json(std::string(taken.c_str()));
}

io::Task<Reply> ringbuf_write(Control& control, Arguments arguments) {
  return ready(write_ring(control, arguments));
}
io::Task<Reply> ringbuf_read(Control& control, Arguments arguments) {
  return ready(read_ring(control, arguments));
}

// No character device here has a line that could be broken.
io::Task<Reply> send_break(Control& control, Arguments arguments) {
  const std::string& id = arguments.text("id");
  if (control.chardevs() == nullptr || !control.chardevs()->has(id))
    return ready(refuse(fmt::format("Chardev '{}' not found", id)));
  return ready(done());
}

constexpr CommandFunction kCommands[] = {
    {"query-chardev", query_chardev},   {"query-chardev-backends", query_chardev_backends},
    {"chardev-add", chardev_add},       {"chardev-change", chardev_change},
    {"chardev-remove", chardev_remove}, {"chardev-send-break", send_break},
    {"ringbuf-write", ringbuf_write},   {"ringbuf-read", ringbuf_read},
};

}  // namespace

std::span<const CommandFunction> chardev_commands() { return kCommands; }

}  // namespace platter::monitor
