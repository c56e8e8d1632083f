#include "monitor/control.h"

#include <algorithm>
#include <ctime>

#include "base/assert.h"
#include "base/try.h"
#include "block/named_nodes.h"
#include "block/write_threshold.h"
#include "monitor/commands.h"
#include "monitor/devices.h"
#include "monitor/nbd_server.h"
#include "monitor/validate.h"

namespace platter::monitor {
namespace {

using base::Json;

// The version of QEMU's monitor that this one is like; clients tell by it what they may use.
constexpr int kMajor = 7, kMinor = 2, kMicro = 0;

uint64_t system_microseconds() {
  timespec now = {};
  clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000 + static_cast<uint64_t>(now.tv_nsec) / 1000;
}

const CommandFunction* find_function(std::string_view name) {
  for (const auto commands : {control_commands(), node_commands(), change_commands(),
                              object_commands(), setting_commands(), device_commands(),
                              chardev_commands(), graph_commands(), nbd_commands()}) {
    const auto found = std::ranges::find(commands, name, &CommandFunction::name);
    if (found != commands.end()) return &*found;
  }
  return nullptr;
}

Schema make_schema(bool has_devices) {
  return has_devices ? Schema({kSchemaText, kDeviceSchemaText}) : Schema();
}

}  // namespace

Control::Control(Parts parts)
    : parts_(std::move(parts)),
      schema_(make_schema(parts_.devices != nullptr)),
      bitmaps_(parts_.graph),
      exports_(parts_.graph, bitmaps_, parts_.exports) {
  if (devices() != nullptr) {
    devices()->set_notifier(
        [this](std::string_view event, Json data) { notify(event, std::move(data)); });
  }
  if (!parts_.microseconds) parts_.microseconds = system_microseconds;
  exports_.set_observer([this](const std::string& id) {
    Json data = Json::object();
    data.add("id", id);
    notify("BLOCK_EXPORT_DELETED", std::move(data));
  });
}

Json Control::version() const {
  Json version = Json::object();
  Json& numbers = version.add("qemu", Json::object());
  numbers.add("micro", kMicro);
  numbers.add("minor", kMinor);
  numbers.add("major", kMajor);
  version.add("package", "Platter");
  return version;
}

io::Task<Reply> Control::run(const CommandSchema& command, Json arguments) {
  PLATTER_CO_TRY(validate(*command.arguments, arguments));
  const CommandFunction* function = find_function(command.name);
  PLATTER_ASSERT(function != nullptr);
  auto turn = co_await running_.lock();
  co_return co_await function->run(*this, Arguments(arguments));
}

io::Task<Reply> Control::run(std::string_view name, Json arguments) {
  const CommandSchema* command = schema_.find_command(name);
  PLATTER_ASSERT(command != nullptr);
  return run(*command, std::move(arguments));
}

// Nodes that others stand on come last.
io::Task<Result<void>> Control::close() {
  auto turn = co_await running_.lock();
  Result<void> result;
  if (devices() != nullptr) result = co_await devices()->close_all();
  if (Result<void> closed = co_await exports_.close_all(); result && !closed)
    result = std::move(closed);
  if (nbd() != nullptr) co_await nbd()->stop();
  bitmaps_.clear();
  for (block::Node* node : graph().nodes()) block::set_write_threshold(*node, 0, {});
  co_await notices_.close();
  for (bool again = true; std::exchange(again, false);) {
    for (block::Node* node : graph().nodes()) {
      if (!block::is_kept(*node) || !block::uses(*node).empty()) continue;
      Result<void> closed = co_await block::delete_node(graph(), *node);
      if (result && !closed) result = std::move(closed);
      again = true;
      break;
    }
  }
  co_return std::move(result);
}

void Control::add_listener(Session& session, std::function<void()> wake) {
  listeners_.push_back({&session, std::move(wake)});
}

void Control::remove_listener(const Session& session) {
  std::erase_if(listeners_, [&](const Listener& one) { return one.session == &session; });
}

static io::Task<void> deliver(Control& control, std::string_view event, Json data) {
  control.notify(event, std::move(data));
  co_return;
}

void Control::notify_on(io::Reactor& reactor, std::string_view event, Json data) {
  notices_.spawn(reactor, deliver(*this, event, std::move(data)));
}

void Control::notify(std::string_view name, Json data) {
  const Event event{name, std::move(data), microseconds()};
  for (const Listener& listener : listeners_) {
    listener.session->notify(event);
    listener.wake();
  }
}

}  // namespace platter::monitor
