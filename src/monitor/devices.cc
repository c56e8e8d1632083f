#include "monitor/devices.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cerrno>

#include "base/assert.h"
#include "base/try.h"
#include "block/backend.h"
#include "io/gate.h"
#include "monitor/event_limit.h"
#include "monitor/iothreads.h"

namespace platter::monitor {

using base::Json;
using block::Permission;
using virtio::blk::ErrorAction;
using virtio::blk::RequestFailure;

namespace {

std::string path_of(const std::string& id) { return "/machine/peripheral/" + id; }

std::string_view name_of(ErrorAction action) {
  switch (action) {
    case ErrorAction::kReport: return "report";
    case ErrorAction::kIgnore: return "ignore";
    case ErrorAction::kStop: break;
  }
  return "stop";
}

// By way of another thread, so that the reactor's turn has ended when it comes back.
io::Task<void> finish_turn() {
  co_await io::Reactor::current()->call([] {});
}

}  // namespace

struct Devices::Entry {
  Entry(std::string id_in, std::function<void(Json)> tell)
      : id(std::move(id_in)), failures(std::move(tell)) {}

  const std::string id;
  std::unique_ptr<block::Backend> backend;
  std::unique_ptr<vhost_user::Export> served;
  uint64_t size = 0;
  std::vector<std::string> iothreads;
  EventLimit failures;
  // What comes from the queues' reactors, to ours. One of them is on its way at a time, besides
  // those that have stopped the device.
  io::Gate notices;
  std::atomic<bool> is_telling = false;
};

Devices::Devices(std::vector<io::Reactor*> reactors, const Objects& objects, const base::Log& log)
    : reactors_(std::move(reactors)), objects_(objects), log_(log) {}

Devices::~Devices() { PLATTER_ASSERT(entries_.empty()); }

void Devices::notify(std::string_view event, Json data) {
  if (notifier_) notifier_(event, std::move(data));
}

// ---- Added and removed

io::Task<Result<std::vector<io::Reactor*>>> Devices::reactors_for(
    std::vector<std::string> iothreads) {
  if (iothreads.empty()) co_return reactors_;
  std::vector<io::Reactor*> found;
  for (const std::string& iothread : iothreads) {
    PLATTER_CO_ASSIGN(io::Reactor * reactor, co_await reactor_of(objects_, reactors_, iothread));
    found.push_back(reactor);
  }
  co_return found;
}

io::Task<Reply> Devices::add(block::Graph& graph, Json all) {
  PLATTER_CO_ASSIGN(DeviceOptions options, read_device_options(all));
  if (!is_identifier(options.id)) co_return refuse("Parameter 'id' expects an identifier");
  const auto is_it = [&](const auto& entry) { return entry->id == options.id; };
  if (std::ranges::any_of(entries_, is_it))
    co_return refuse(fmt::format("Duplicate device ID '{}'", options.id));
  block::Node* node = graph.find(options.drive);
  if (node == nullptr) {
    co_return refuse(
        fmt::format("Property 'virtio-blk.drive' can't find value '{}'", options.drive));
  }
  auto entry = std::make_unique<Entry>(
      options.id, [this](Json data) { notify("BLOCK_IO_ERROR", std::move(data)); });
  PLATTER_CO_TRY(co_await start(*entry, *node, std::move(options)));
  entries_.push_back(std::move(entry));
  co_return Json::object();
}

io::Task<Result<void>> Devices::start(Entry& entry, block::Node& node, DeviceOptions options) {
  vhost_user::Options& served = options.served;
  PLATTER_CO_ASSIGN(served.reactors, co_await reactors_for(options.iothreads));
  entry.iothreads = std::move(options.iothreads);
  served.slow_request = slow_request_;
  served.properties.read_only = node.read_only();
  served.on_failure = [this, &entry, home = io::Reactor::current()](const RequestFailure& failure) {
    hear(entry, *home, failure);
  };
  block::Permissions needed = Permission::kConsistentRead;
  if (!node.read_only()) needed |= Permission::kWrite;
  block::Permissions shared = Permission::kConsistentRead;
  shared |= Permission::kWriteUnchanged;
  shared |= Permission::kResize;
  if (options.shares_writes) shared |= Permission::kWrite;
  PLATTER_CO_ASSIGN(entry.backend, co_await node.graph().attach(node, needed, shared));
  entry.size = entry.backend->size();
  auto started = vhost_user::Export::start(*entry.backend, std::move(served), log_);
  if (!started) {
    if (auto closed = co_await entry.backend->close(); !closed)
      log_.warning(closed.error().message());
    co_return std::unexpected(std::move(started).error());
  }
  entry.served = std::move(*started);
  if (state_ == RunState::kPaused) entry.served->device().errors().stop_by_user();
  co_return Result<void>();
}

io::Task<Reply> Devices::remove(std::string id) {
  const auto found = std::ranges::find(entries_, id, [](const auto& entry) { return entry->id; });
  if (found == entries_.end()) co_return not_found(fmt::format("Device '{}' not found", id));
  auto entry = std::move(*found);
  entries_.erase(found);
  PLATTER_CO_TRY(co_await close(std::move(entry)));
  co_return Json::object();
}

io::Task<Result<void>> Devices::close(std::unique_ptr<Entry> entry) {
  co_await entry->served->stop();
  co_await entry->notices.close();
  co_await entry->failures.close();
  entry->served.reset();
  Result<void> closed = co_await entry->backend->close();
  Json data = Json::object();
  data.add("device", entry->id);
  data.add("path", path_of(entry->id));
  notify("DEVICE_DELETED", std::move(data));
  co_return std::move(closed);
}

io::Task<Result<void>> Devices::close_all() {
  Result<void> result;
  while (!entries_.empty()) {
    auto entry = std::move(entries_.back());
    entries_.pop_back();
    Result<void> closed = co_await close(std::move(entry));
    if (result && !closed) result = std::move(closed);
  }
  co_return std::move(result);
}

void Devices::sizes_may_have_changed() {
  for (const auto& entry : entries_) {
    const uint64_t size = entry->backend->size();
    if (std::exchange(entry->size, size) != size) entry->served->config_changed();
  }
}

std::vector<Devices::Listed> Devices::list() const {
  std::vector<Listed> listed;
  for (const auto& entry : entries_)
    listed.push_back({entry->id, *entry->backend, entry->served->device().errors()});
  return listed;
}

bool Devices::use_io_thread(std::string_view id) const {
  return std::ranges::any_of(entries_, [&](const auto& entry) {
    return std::ranges::find(entry->iothreads, id) != entry->iothreads.end();
  });
}

// ---- Whether they run

// On the reactor of the queue.
void Devices::hear(Entry& entry, io::Reactor& home, const RequestFailure& failure) {
  if (entry.is_telling.exchange(true) && !failure.stops) return;
  entry.notices.spawn(home, tell(entry, failure));
}

io::Task<void> Devices::tell(Entry& entry, RequestFailure failure) {
  entry.is_telling = false;
  Json data = Json::object();
  data.add("qom-path", path_of(entry.id));
  data.add("device", "");
  data.add("node-name", entry.backend->node().name());
  data.add("operation", failure.read ? "read" : "write");
  data.add("action", name_of(failure.action));
  if (entry.served->device().errors().has_status()) data.add("nospace", failure.error == ENOSPC);
  data.add("reason", Error::from_errno(failure.error).message());
  entry.failures.offer(std::move(data));
  // It may have been told to go on, or been reset, since.
  const bool is_stopped = entry.served->device().errors().is_stopped_by_error();
  if (failure.stops && is_stopped && state_ == RunState::kRunning) {
    state_ = RunState::kIoError;
    notify("STOP");
  }
  co_return;
}

io::Task<Result<void>> Devices::stop() {
  for (const auto& entry : entries_) entry->served->device().errors().stop_by_user();
  if (std::exchange(state_, RunState::kPaused) == RunState::kRunning) notify("STOP");
  // What a queue has taken by now has reached the backend,
  co_await finish_turns();
  for (const auto& entry : entries_) {
    block::Node& node = entry->backend->node();
    block::Graph& graph = node.graph();
    co_await graph.drained_begin(node);
    graph.drained_end(node);
  }
  // and what the backend has ended by now is in the driver's ring.
  co_await finish_turns();
  co_return co_await flush();
}

io::Task<Result<void>> Devices::flush() {
  Result<void> result;
  for (const auto& entry : entries_) {
    if (entry->backend->node().read_only()) continue;
    Result<void> flushed = co_await entry->backend->flush();
    if (!flushed)
      flushed.error().add_context(fmt::format("Could not flush device '{}'", entry->id));
    if (result && !flushed) result = std::move(flushed);
  }
  co_return std::move(result);
}

io::Task<void> Devices::finish_turns() {
  for (io::Reactor* reactor : reactors_) co_await io::run_on(*reactor, finish_turn());
}

void Devices::go_on() {
  for (const auto& entry : entries_) entry->served->go_on();
  if (std::exchange(state_, RunState::kRunning) != RunState::kRunning) notify("RESUME");
}

}  // namespace platter::monitor
