// Commands about the NBD server, and the older ones about what it serves.
#include "base/try.h"
#include "monitor/commands.h"
#include "monitor/nbd_server.h"

namespace platter::monitor {
namespace {

using base::Json;

io::Task<Reply> start(Control& control, Arguments arguments) {
  if (control.nbd() == nullptr) return ready(refuse("No NBD server can be started here"));
  auto free = control.nbd()->check_stopped();
  if (!free) return ready(std::unexpected(Failure(free.error())));
  auto address = SocketAddress::from_legacy_json(arguments.at("addr"));
  if (!address) return ready(std::unexpected(Failure(address.error())));
  auto started = control.nbd()->start(*address, arguments);
  if (!started) return ready(std::unexpected(Failure(started.error())));
  return ready(done());
}

io::Task<Reply> stop(Control& control, Arguments) {
  if (control.nbd() == nullptr) co_return refuse("NBD server not running");
  PLATTER_CO_TRY(control.nbd()->check_running());
  Result<void> closed = co_await control.exports().close_all("nbd");
  co_await control.nbd()->stop();
  PLATTER_CO_TRY(std::move(closed));
  co_return done();
}

// The same as block-export-add with the export's name for its id.
io::Task<Reply> add(Control& control, Arguments arguments) {
  const std::string& device = arguments.text("device");
  PLATTER_CO_ASSIGN(block::Node * node, find_node(control, device, device));
  const std::string name = arguments.has("name") ? arguments.text("name") : device;
  Json options = Json::object();
  options.add("type", "nbd");
  options.add("id", name);
  options.add("node-name", node->name());
  // Where it cannot be written, it is served as it is.
  options.add("writable", arguments.flag("writable") && !node->read_only());
  options.add("name", name);
  if (arguments.has("description")) options.add("description", arguments.text("description"));
  if (arguments.has("bitmap"))
    options.add("bitmaps", Json(Json::Array{Json(arguments.text("bitmap"))}));
  co_return co_await control.exports().add(std::move(options));
}

io::Task<Reply> remove(Control& control, Arguments arguments) {
  const std::string& name = arguments.text("name");
  if (!control.exports().is_of_type(name, "nbd"))
    return ready(refuse("Export '" + name + "' is not found"));
  const bool hard = arguments.text_or_empty("mode") == "hard";
  return control.exports().remove(name, hard ? Exports::Mode::kHard : Exports::Mode::kSafe);
}

constexpr CommandFunction kCommands[] = {
    {"nbd-server-start", start},
    {"nbd-server-stop", stop},
    {"nbd-server-add", add},
    {"nbd-server-remove", remove},
};

}  // namespace

std::span<const CommandFunction> nbd_commands() { return kCommands; }

}  // namespace platter::monitor
