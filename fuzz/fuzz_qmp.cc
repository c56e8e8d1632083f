// A client of the monitor that says anything at all, whole or in pieces, to a daemon that has a
// qcow2 image and a disk in memory. Each input has a fresh daemon, in a simulated world: no file of
// the host is reached, and a hang is noticed.
//
// The first byte is how many bytes come at a time.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/json.h"
#include "block/registry.h"
#include "io/simulation.h"
#include "monitor/control.h"
#include "monitor/session.h"

namespace {

using namespace platter;

void require(bool holds) {
  if (!holds) std::abort();
}

// The one command that reads files of the host is kept from them.
class Guarded final : public monitor::CommandRunner {
 public:
  explicit Guarded(monitor::Control& control) : control_(control) {}
  const monitor::Schema& schema() const override { return control_.schema(); }
  base::Json version() const override { return control_.version(); }
  io::Task<monitor::Reply> run(const monitor::CommandSchema& command,
                               base::Json arguments) override {
    for (const auto* outside : {"file", "dir", "filename", "path", "serial"}) {
      if (command.name == "object-add" && arguments.find(outside) != nullptr)
        arguments = base::Json::object();
    }
    return control_.run(command, std::move(arguments));
  }

 private:
  monitor::Control& control_;
};

io::Task<void> prepare(block::Graph& graph, monitor::Control& control) {
  block::CreateRequest image{.filename = "disk.qcow2", .format = "qcow2", .options = {}};
  image.options.set("size", "1M");
  image.options.set("cluster_size", "512");
  require((co_await graph.create(std::move(image))).has_value());
  for (const auto* node : {R"({"driver": "qcow2", "node-name": "disk",
            "file": {"driver": "file", "node-name": "file", "filename": "disk.qcow2"}})",
                           R"({"driver": "memory", "node-name": "memory", "size": 65536})"}) {
    require((co_await control.run("blockdev-add", *base::Json::parse(node))).has_value());
  }
}

// Every answer is JSON, and there is one for each request at most but for events.
void check_output(const std::string& output) {
  monitor::JsonSplitter splitter;
  std::string_view rest = output;
  while (auto answer = splitter.next(rest)) require(answer->has_value());
}

io::Task<void> talk(block::Graph& graph, std::string_view text) {
  monitor::Objects objects;
  monitor::Control control({.graph = graph,
                            .objects = objects,
                            .policy = OpenPolicy::own_directory(),
                            .microseconds = [] { return uint64_t{0}; }});
  co_await prepare(graph, control);
  Guarded guarded(control);
  monitor::Session session(guarded, /*pretty=*/false);
  session.receive(R"({"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}})");
  const size_t step = text.empty() || text[0] == 0 ? 4096 : static_cast<unsigned char>(text[0]);
  text.remove_prefix(std::min<size_t>(1, text.size()));
  while (true) {
    while (session.has_request()) co_await session.run_next();
    check_output(session.take_output());
    if (text.empty()) break;
    session.receive(text.substr(0, step));
    text.remove_prefix(std::min(step, text.size()));
  }
  require((co_await control.close()).has_value());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  io::Simulation simulation(1);
  const auto registry = block::DriverRegistry::builtin();
  base::Log log;
  {
    block::Graph graph({.registry = registry, .files = simulation.files(), .log = log});
    simulation.run(talk(graph, {reinterpret_cast<const char*>(data), size}));
  }
  return 0;
}
