// Commands about devices, and whether they run.
#include "base/try.h"
#include "monitor/commands.h"
#include "monitor/devices.h"

namespace platter::monitor {
namespace {

using base::Json;

io::Task<Reply> device_add(Control& control, Arguments arguments) {
  return control.devices()->add(control.graph(), arguments.json());
}

io::Task<Reply> device_del(Control& control, Arguments arguments) {
  return control.devices()->remove(arguments.text("id"));
}

std::string_view name_of(Devices::RunState state) {
  switch (state) {
    case Devices::RunState::kRunning: return "running";
    case Devices::RunState::kPaused: return "paused";
    case Devices::RunState::kIoError: break;
  }
  return "io-error";
}

io::Task<Reply> query_status(Control& control, Arguments) {
  const Devices::RunState state = control.devices()->run_state();
  Json status = Json::object();
  status.add("running", state == Devices::RunState::kRunning);
  status.add("singlestep", false);
  status.add("status", name_of(state));
  return ready(std::move(status));
}

io::Task<Reply> stop(Control& control, Arguments) {
  PLATTER_CO_TRY(co_await control.devices()->stop());
  co_return done();
}

io::Task<Reply> go_on(Control& control, Arguments) {
  control.devices()->go_on();
  return ready(done());
}

constexpr CommandFunction kCommands[] = {
    {"device_add", device_add},
    {"device_del", device_del},
    {"query-status", query_status},
    {"stop", stop},
    {"cont", go_on},
};

}  // namespace

std::span<const CommandFunction> device_commands() { return kCommands; }

}  // namespace platter::monitor
