// Commands about the monitor itself.
#include "monitor/commands.h"
#include "monitor/introspection.h"

namespace platter::monitor {
namespace {

using base::Json;

io::Task<Reply> query_version(Control& control, Arguments) { return ready(control.version()); }

io::Task<Reply> query_commands(Control& control, Arguments) {
  Json list = Json::array();
  for (const CommandSchema& command : control.schema().commands())
    list.append(Json::object()).add("name", command.name);
  return ready(std::move(list));
}

io::Task<Reply> query_qmp_schema(Control& control, Arguments) {
  return ready(introspect(control.schema()));
}

io::Task<Reply> quit(Control& control, Arguments) {
  control.quit().set();
  return ready(done());
}

// No job can be started, so that there are none.
io::Task<Reply> query_jobs(Control&, Arguments) { return ready(Json::array()); }

constexpr CommandFunction kCommands[] = {
    {"query-version", query_version},
    {"query-commands", query_commands},
    {"query-qmp-schema", query_qmp_schema},
    {"quit", quit},
    {"query-jobs", query_jobs},
    {"query-block-jobs", query_jobs},
};

}  // namespace

std::span<const CommandFunction> control_commands() { return kCommands; }

}  // namespace platter::monitor
