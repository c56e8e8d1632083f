// platter daemon: images served to others, and told what to do by QMP.
#include <algorithm>
#include <memory>
#include <ranges>
#include <string_view>
#include <vector>

#include "base/try.h"
#include "io/gate.h"
#include "monitor/chardevs.h"
#include "monitor/control.h"
#include "monitor/definitions.h"
#include "monitor/devices.h"
#include "monitor/export_types.h"
#include "monitor/monitor.h"
#include "monitor/nbd_server.h"
#include "tool/background.h"
#include "tool/command.h"
#include "tool/help.h"
#include "tool/pid_file.h"
#include "tool/session.h"
#include "tool/slow_request.h"

namespace platter::tool {
namespace {

using monitor::Failure;
using monitor::Reply;

// "help" or "?" as a word of its own.
bool asks_for_help(std::string_view definition) {
  for (const auto word : std::views::split(definition, ',')) {
    const std::string_view text(word.begin(), word.end());
    if (text == "help" || text == "?") return true;
  }
  return false;
}

class Daemon {
 public:
  Daemon(Session& session, Invocation& invocation, Background& background)
      : session_(session),
        invocation_(invocation),
        background_(background),
        nbd_(invocation.objects, session.log()),
        exports_(session.all_reactors(), invocation.objects, nbd_, session.log()),
        devices_(session.all_reactors(), invocation.objects, session.log()),
        control_({.graph = session.graph(),
                  .objects = invocation.objects,
                  .policy = session.policy(),
                  .exports = &exports_,
                  .chardevs = &chardevs_,
                  // Who knows the other name expects no devices.
                  .devices = invocation.dialect == Dialect::kPlatter ? &devices_ : nullptr,
                  .nbd = &nbd_}) {}

  // Returns the exit status.
  io::Task<int> run() {
    // Before anybody hears that it runs.
    session_.interrupts().set_handler([this] {
      chardevs_.give_up_waiting();
      control_.quit().set();
    });
    bool good = co_await set_up();
    if (good) {
      for (const auto& monitor : monitors_) tasks_.spawn(*io::Reactor::current(), monitor->serve());
      co_await control_.quit();
    }
    for (const auto& monitor : monitors_) monitor->stop();
    co_await tasks_.close();
    if (auto closed = co_await control_.close(); !closed) {
      invocation_.fail(closed.error());
      good = false;
    }
    session_.interrupts().set_handler({});
    co_return good ? 0 : 1;
  }

 private:
  io::Task<bool> set_up() {
    for (const GivenOption& given : invocation_.options) {
      const Reply made = co_await make(given);
      if (made) continue;
      invocation_.fail("--" + std::string(given.option->name) + " " + given.value + ": " +
                       made.error().description);
      co_return false;
    }
    if (const auto path = invocation_.value("pidfile")) {
      auto made = PidFile::create(*path);
      if (!made) {
        invocation_.fail(std::move(made).error().with_context("cannot create PID file"));
        co_return false;
      }
      pid_file_ = std::move(*made);
    }
    if (auto ready = background_.ready(); !ready) {
      invocation_.fail(ready.error());
      co_return false;
    }
    co_return true;
  }

  // One after the other, each standing on those before it.
  io::Task<Reply> make(const GivenOption& given) {
    constexpr std::string_view kWithoutHelp[] = {"blockdev", "export", "monitor", "nbd-server"};
    if (asks_for_help(given.value) &&
        std::ranges::find(kWithoutHelp, given.option->name) != std::end(kWithoutHelp)) {
      const Error error(EINVAL, "Help is not available for this option");
      return io::Task<Reply>::ready(std::unexpected(Failure(error)));
    }
    if (given.is("blockdev")) return by_command("BlockdevOptions", "blockdev-add", given, "driver");
    if (given.is("export"))
      return by_command("BlockExportOptions", "block-export-add", given, "type");
    if (given.is("device")) return by_command("DeviceOptions", "device_add", given, "driver");
    Result<void> made;
    if (given.is("object")) made = invocation_.objects.add(given.value);
    if (given.is("chardev")) made = add_chardev(given.value);
    if (given.is("monitor")) made = add_monitor(given.value);
    if (given.is("nbd-server")) made = start_nbd_server(given.value);
    if (given.is("slow")) made = set_slow_request(given.value);
    if (!made) return io::Task<Reply>::ready(std::unexpected(Failure(made.error())));
    return io::Task<Reply>::ready(base::Json());
  }

  io::Task<Reply> by_command(std::string_view type, std::string_view command,
                             const GivenOption& given, std::string_view implied_key) {
    PLATTER_CO_ASSIGN(
        base::Json definition,
        monitor::parse_definition(*control_.schema().find_type(type), given.value, implied_key));
    co_return co_await control_.run(command, std::move(definition));
  }

  Result<void> add_chardev(const std::string& definition) {
    const bool stdio = definition.starts_with("stdio") || definition.starts_with("backend=stdio");
    if (stdio && invocation_.has("daemonize"))
      return fail(EINVAL, "cannot use stdio with -daemonize");
    return chardevs_.add(definition);
  }

  Result<void> start_nbd_server(const std::string& definition) {
    const auto& type = *control_.schema().find_type("NbdServerOptions");
    PLATTER_ASSIGN(const base::Json options, monitor::parse_definition(type, definition, ""));
    PLATTER_ASSIGN(const auto address, monitor::SocketAddress::from_json(*options.find("addr")));
    return nbd_.start(address, monitor::Arguments(options));
  }

  Result<void> set_slow_request(const std::string& text) {
    PLATTER_ASSIGN(const io::Nanoseconds time, parse_slow_request(text));
    exports_.set_slow_request(time);
    devices_.set_slow_request(time);
    return {};
  }

  Result<void> add_monitor(const std::string& definition) {
    const auto& type = *control_.schema().find_type("MonitorOptions");
    PLATTER_ASSIGN(const base::Json options,
                   monitor::parse_definition(type, definition, "chardev"));
    const monitor::Arguments given(options);
    PLATTER_ASSIGN(monitor::Chardev * chardev, chardevs_.take(given.text("chardev")));
    if (given.has("mode") && given.text("mode") != "control")
      return fail(EINVAL, "Only QMP is supported");
    monitors_.push_back(
        std::make_unique<monitor::Monitor>(control_, *chardev, given.flag("pretty")));
    return {};
  }

  Session& session_;
  Invocation& invocation_;
  Background& background_;
  monitor::NbdServer nbd_;
  monitor::BuiltinExportTypes exports_;
  monitor::Devices devices_;
  monitor::Chardevs chardevs_;
  monitor::Control control_;
  std::vector<std::unique_ptr<monitor::Monitor>> monitors_;
  io::Gate tasks_;
  std::unique_ptr<PidFile> pid_file_;
};

io::Task<int> run_in(Session& session, Invocation& invocation, Background& background) {
  Daemon daemon(session, invocation, background);
  co_return co_await daemon.run();
}

int run_daemon(Invocation& invocation) {
  if (invocation.has("version")) {
    invocation.console.print(version_text(invocation.dialect));
    return 0;
  }
  if (!invocation.operands.empty())
    return invocation.fail(invocation.operands.front() + ": Unexpected argument");
  for (const auto& definition : invocation.values("chardev")) {
    const std::string help = monitor::chardev_help(definition);
    if (help.empty()) continue;
    invocation.console.print(help);
    return invocation.console.finish() ? 0 : 1;
  }
  for (const auto& spec : invocation.values("trace"))
    invocation.console.warning("trace event '" + spec + "' does not exist");
  Background background;
  if (invocation.has("daemonize")) {
    if (auto entered = background.enter(); !entered) return invocation.fail(entered.error());
  }
  raise_file_limit();
  auto states = state_directory(invocation);
  if (!states) return invocation.fail(states.error());
  auto session = Session::start(invocation, Reactors::kOneAProcessor, std::move(*states));
  if (!session) return invocation.fail(session.error());
  return io::run_blocking((*session)->reactors().at(0), run_in(**session, invocation, background));
}

constexpr CommandOption kOptions[] = {
    {.name = "blockdev",
     .argument = "OPTIONS",
     .help = "open a node: JSON, or driver=qcow2,node-name=N,file.driver=file,file.filename=F"},
    {.name = "object",
     .argument = "OBJECT",
     .help = "define a secret, throttle group, I/O thread...; help lists them"},
    {.name = "chardev",
     .argument = "OPTIONS",
     .help = "socket,path=P,server=on,wait=off,id=I or stdio,id=I: where a monitor is reached; "
             "help lists the kinds"},
    {.name = "monitor", .argument = "CHARDEV[,pretty=on]", .help = "speak QMP there"},
    {.name = "nbd-server",
     .argument = "OPTIONS",
     .help = "serve exports of type nbd at addr.type=unix,addr.path=SOCKET"},
    {.name = "export",
     .argument = "OPTIONS",
     .help = "serve a node: type=TYPE,id=I,node-name=N[,writable=on]..."},
    {.name = "device",
     .argument = "OPTIONS",
     .help = "a virtio-blk device: virtio-blk,id=I,drive=N,addr.type=unix,addr.path=SOCKET and the "
             "properties of QEMU's device",
     .native = true},
    {.name = "state",
     .argument = "DIRECTORY",
     .help = "where what is not yet on disk outlives a killed process, or none (default: this "
             "user's in /dev/shm; none as qemu-storage-daemon)"},
    {.name = "slow",
     .argument = "MS",
     .help = "say which requests of the exports and devices that follow take so many milliseconds "
             "or more"},
    {.name = "pidfile", .argument = "FILE", .help = "has the process id while it runs"},
    {.name = "daemonize", .help = "go into the background once everything is ready"},
    {.letter = 'T',
     .name = "trace",
     .argument = "SPEC",
     .help = "accepted for compatibility; there are no trace events"},
    {.letter = 'V', .name = "version", .help = "show the version"},
};

}  // namespace

extern const Command kDaemonCommand;
const Command kDaemonCommand = {
    .name = "daemon",
    .summary = "Serve images, and take orders by QMP.",
    .operands = "",
    .options = kOptions,
    .run = run_daemon,
    .native = true,
    .defines_objects = true,
};

}  // namespace platter::tool
