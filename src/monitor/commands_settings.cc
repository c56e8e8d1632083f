// Commands about how nodes that are open go on: reopened, watched, measured.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <optional>

#include "base/try.h"
#include "block/latency_histogram.h"
#include "block/reopen.h"
#include "block/write_threshold.h"
#include "monitor/commands.h"
#include "monitor/devices.h"

namespace platter::monitor {
namespace {

using base::Json;
using block::Node;

// ---- blockdev-reopen

io::Task<Reply> reopen(Control& control, Arguments arguments) {
  std::vector<block::Reopening> wishes;
  for (const Json& options : arguments.array("options")) {
    const std::string name = Arguments(options).text_or_empty("node-name");
    if (name.empty()) co_return refuse("node-name not specified");
    Node* node = control.graph().find(name);
    if (node == nullptr)
      co_return refuse(fmt::format("Failed to find node with node-name='{}'", name));
    PLATTER_CO_ASSIGN(base::Options words, base::Options::from_json(options));
    wishes.push_back({node, std::move(words)});
  }
  std::vector<Node*> nodes;
  for (const block::Reopening& wish : wishes) nodes.push_back(wish.node);
  Result<void> reopened = co_await block::reopen_nodes(control.graph(), std::move(wishes));
  control.bitmaps().sweep();
  // Another window of a file has another size.
  for (Node* node : control.graph().nodes()) {
    if (reopened && std::ranges::find(nodes, node) != nodes.end())
      reopened = control.bitmaps().follow_size(*node);
  }
  control.exports().sizes_may_have_changed();
  PLATTER_CO_TRY(std::move(reopened));
  co_return done();
}

// ---- block-set-write-threshold

io::Task<Reply> set_threshold(Control& control, Arguments arguments) {
  const std::string& name = arguments.text("node-name");
  Node* node = control.graph().find(name);
  if (node == nullptr) co_return refuse(fmt::format("Device '{}' not found", name));
  io::Reactor& home = *io::Reactor::current();
  block::ThresholdObserver observer = [&control, &home, name](uint64_t exceeded_by,
                                                              uint64_t threshold) {
    Json data = Json::object();
    data.add("node-name", name);
    data.add("amount-exceeded", exceeded_by);
    data.add("write-threshold", threshold);
    control.notify_on(home, "BLOCK_WRITE_THRESHOLD", std::move(data));
  };
  co_await control.graph().drained_begin(*node);
  block::set_write_threshold(*node, arguments.natural("write-threshold", 0), std::move(observer));
  control.graph().drained_end(*node);
  co_return done();
}

// ---- block-latency-histogram-set

struct Boundaries {
  std::string_view member;
  std::string_view name;
  block::LatencyKind kind;
};
constexpr Boundaries kBoundaries[] = {
    {"boundaries-read", "read", block::LatencyKind::kRead},
    {"boundaries-write", "write", block::LatencyKind::kWrite},
    {"boundaries-zap", "append write", block::LatencyKind::kZoneAppend},
    {"boundaries-flush", "flush", block::LatencyKind::kFlush},
};
// Each takes memory of every reactor.
constexpr size_t kMaxBoundaries = 1024;

std::optional<block::LatencyBoundaries> read_boundaries(const Json::Array& items) {
  block::LatencyBoundaries boundaries;
  for (const Json& item : items) {
    const auto* large = item.get_if<uint64_t>();
    const auto* number = item.get_if<int64_t>();
    if (large == nullptr && (number == nullptr || *number < 0)) return std::nullopt;
    boundaries.push_back(large != nullptr ? *large : static_cast<uint64_t>(*number));
  }
  const bool ascending =
      std::ranges::adjacent_find(boundaries, std::greater_equal<uint64_t>()) == boundaries.end();
  if (boundaries.empty() || boundaries.front() == 0 || !ascending) return std::nullopt;
  if (boundaries.size() > kMaxBoundaries) return std::nullopt;
  return boundaries;
}

// By the id of a device or of an export, or by the node's own name.
Node* find_measured(Control& control, const std::string& id) {
  if (control.devices() != nullptr) {
    for (const Devices::Listed& device : control.devices()->list()) {
      if (device.id == id) return control.graph().find(device.backend.node().name());
    }
  }
  Node* exported = control.exports().node(id);
  return exported != nullptr ? exported : control.graph().find(id);
}

io::Task<Reply> set_histograms(Control& control, Arguments arguments) {
  const std::string& id = arguments.text("id");
  Node* node = find_measured(control, id);
  if (node == nullptr) co_return not_found(fmt::format("Device '{}' not found", id));
  struct Wish {
    block::LatencyKind kind;
    std::optional<block::LatencyBoundaries> boundaries;
  };
  std::vector<Wish> wishes;
  const bool ends = arguments.json().get_if<Json::Object>()->size() == 1;
  for (const Boundaries& one : kBoundaries) {
    const std::string_view member = arguments.has(one.member) ? one.member : "boundaries";
    if (ends) {
      wishes.push_back({one.kind, std::nullopt});
    } else if (arguments.has(member)) {
      auto boundaries = read_boundaries(arguments.array(member));
      if (!boundaries)
        co_return refuse(fmt::format("Device '{}' set {} boundaries fail", id, one.name));
      wishes.push_back({one.kind, std::move(boundaries)});
    }
  }
  co_await control.graph().drained_begin(*node);
  for (Wish& wish : wishes)
    block::set_latency_histogram(*node, wish.kind, std::move(wish.boundaries));
  control.graph().drained_end(*node);
  co_return done();
}

constexpr CommandFunction kCommands[] = {
    {"blockdev-reopen", reopen},
    {"block-set-write-threshold", set_threshold},
    {"block-latency-histogram-set", set_histograms},
};

}  // namespace

std::span<const CommandFunction> setting_commands() { return kCommands; }

}  // namespace platter::monitor
