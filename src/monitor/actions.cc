#include "monitor/actions.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "base/try.h"
#include "block/named_nodes.h"
#include "block/overlay.h"
#include "monitor/commands.h"
#include "monitor/snapshots.h"

namespace platter::monitor {
namespace {

using base::Json;
using block::DirtyBitmap;
using block::Node;
using Undo = std::function<io::Task<Result<void>>()>;

// What an action has left to do once all of them, or not all, have been done.
struct Taken {
  Taken(Undo way_back, Undo end = {}) : undo(std::move(way_back)), settle(std::move(end)) {}
  Undo undo;
  Undo settle;  // may be empty
};
using Done = std::expected<Taken, Failure>;

io::Task<Result<void>> ended(Result<void> result) {
  return io::Task<Result<void>>::ready(std::move(result));
}

// ---- Bitmaps

std::expected<Node*, Failure> find_bitmap_node(Control& control, const std::string& name) {
  if (Node* node = control.graph().find(name)) return node;
  return refuse(fmt::format("Node '{}' not found", name));
}

io::Task<Done> add_bitmap(Control& control, Arguments data) {
  const std::string& node_name = data.text("node");
  PLATTER_CO_ASSIGN(Node * node, find_node(control, node_name, node_name));
  const std::string& name = data.text("name");
  // What is not there stands for what suits the node; what is there is taken at its word.
  const bool given = data.has("granularity");
  if (name.empty()) co_return refuse("Bitmap name cannot be empty");
  if (given && data.natural("granularity", 0) == 0)
    co_return refuse("Granularity must be power of 2 and at least 512");
  PLATTER_CO_TRY(control.bitmaps().add(*node, {.name = name,
                                               .granularity = data.natural("granularity", 0),
                                               .persistent = data.flag("persistent"),
                                               .enabled = !data.flag("disabled")}));
  co_return Undo([&control, node, name] { return ended(control.bitmaps().remove(*node, name)); });
}

// A copy of what a bitmap holds, for the way back.
io::Task<Result<std::shared_ptr<DirtyBitmap>>> keep_bits(Control& control, Node& node,
                                                         std::string name) {
  PLATTER_CO_ASSIGN(const auto bits, co_await control.bitmaps().bits(node, name));
  PLATTER_CO_ASSIGN(auto copy, DirtyBitmap::create(name, bits->size(), bits->granularity()));
  PLATTER_CO_TRY(copy->merge(*bits));
  co_return copy;
}

Result<void> put_back(NodeBitmaps& bitmaps, Node& node, const std::string& name,
                      const DirtyBitmap& kept) {
  PLATTER_TRY(bitmaps.clear(node, name));
  return bitmaps.merge(node, name, kept);
}

io::Task<Done> remove_bitmap(Control& control, Arguments data) {
  PLATTER_CO_ASSIGN(Node * node, find_bitmap_node(control, data.text("node")));
  const std::string name = data.text("name");
  NodeBitmaps& bitmaps = control.bitmaps();
  PLATTER_CO_ASSIGN(const auto info, bitmaps.find(*node, name));
  const bool persistent = bitmaps.is_persistent(*node, name);
  std::shared_ptr<DirtyBitmap> kept;
  if (!info.inconsistent) {
    PLATTER_CO_ASSIGN(kept, co_await keep_bits(control, *node, name));
  }
  PLATTER_CO_TRY(bitmaps.remove(*node, name));
  co_return Undo([&bitmaps, node, info, persistent, kept] {
    // One that was of no use before stays away.
    if (kept == nullptr) return ended({});
    Result<void> back = bitmaps.add(*node, {.name = info.name,
                                            .granularity = info.granularity,
                                            .persistent = persistent,
                                            .enabled = info.enabled});
    if (back) back = bitmaps.merge(*node, info.name, *kept);
    return ended(std::move(back));
  });
}

io::Task<Done> clear_bitmap(Control& control, Arguments data) {
  PLATTER_CO_ASSIGN(Node * node, find_bitmap_node(control, data.text("node")));
  const std::string name = data.text("name");
  PLATTER_CO_ASSIGN(const auto kept, co_await keep_bits(control, *node, name));
  NodeBitmaps& bitmaps = control.bitmaps();
  PLATTER_CO_TRY(bitmaps.clear(*node, name));
  co_return Undo([&bitmaps, node, name, kept] { return ended(bitmaps.merge(*node, name, *kept)); });
}

io::Task<Done> enable_bitmap(Control& control, Arguments data, bool on) {
  PLATTER_CO_ASSIGN(Node * node, find_bitmap_node(control, data.text("node")));
  const std::string name = data.text("name");
  NodeBitmaps& bitmaps = control.bitmaps();
  PLATTER_CO_ASSIGN(const auto info, bitmaps.find(*node, name));
  PLATTER_CO_TRY(bitmaps.enable(*node, name, on));
  co_return Undo(
      [&bitmaps, node, info] { return ended(bitmaps.enable(*node, info.name, info.enabled)); });
}
io::Task<Done> switch_on_bitmap(Control& control, Arguments data) {
  return enable_bitmap(control, data, true);
}
io::Task<Done> switch_off_bitmap(Control& control, Arguments data) {
  return enable_bitmap(control, data, false);
}

// "name", of the target's node, or {"node": ..., "name": ...}.
io::Task<std::expected<std::shared_ptr<DirtyBitmap>, Failure>> find_source(Control& control,
                                                                           Node& node,
                                                                           const Json& source) {
  if (const auto* name = source.get_if<std::string>()) {
    PLATTER_CO_ASSIGN(auto bits, co_await control.bitmaps().bits(node, *name));
    co_return bits;
  }
  const Arguments given(source);
  PLATTER_CO_ASSIGN(Node * other, find_bitmap_node(control, given.text("node")));
  PLATTER_CO_ASSIGN(auto bits, co_await control.bitmaps().bits(*other, given.text("name")));
  co_return bits;
}

io::Task<Done> merge_bitmaps(Control& control, Arguments data) {
  PLATTER_CO_ASSIGN(Node * node, find_bitmap_node(control, data.text("node")));
  const std::string name = data.text("target");
  NodeBitmaps& bitmaps = control.bitmaps();
  PLATTER_CO_ASSIGN(const auto target, co_await bitmaps.bits(*node, name));
  // All that is to be merged, so that nothing has changed where one of them cannot be had.
  PLATTER_CO_ASSIGN(const auto sum,
                    DirtyBitmap::create(name, target->size(), target->granularity()));
  for (const Json& source : data.array("bitmaps")) {
    PLATTER_CO_ASSIGN(const auto bits, co_await find_source(control, *node, source));
    PLATTER_CO_TRY(sum->merge(*bits));
  }
  PLATTER_CO_ASSIGN(const auto kept, co_await keep_bits(control, *node, name));
  PLATTER_CO_TRY(bitmaps.merge(*node, name, *sum));
  co_return Undo(
      [&bitmaps, node, name, kept] { return ended(put_back(bitmaps, *node, name, *kept)); });
}

// ---- Snapshots

io::Task<Done> take_internal_snapshot(Control& control, Arguments data) {
  PLATTER_CO_ASSIGN(Node * node, find_root(control, data.text("device")));
  PLATTER_CO_ASSIGN(const std::string id,
                    co_await take_snapshot(control, *node, data.text("name")));
  co_return Undo([node, id] { return node->driver().snapshot_store()->delete_snapshot(id); });
}

io::Task<Result<void>> take_off(Control& control, block::PutOverlay put) {
  co_await block::take_off_overlay(control.graph(), std::move(put));
  co_return Result<void>();
}

// What was promised of the node's writes holds although flushes go to the overlay from then on.
io::Task<Result<void>> flush_below(Node& node) {
  if (node.read_only()) co_return Result<void>();
  co_return co_await node.flush();
}

io::Task<Result<block::PutOverlay>> put_drained(Control& control, Node& overlay, Node& node) {
  PLATTER_CO_TRY(co_await flush_below(node));
  co_await control.graph().drained_begin(overlay);
  auto put = co_await block::put_overlay(control.graph(), overlay, node);
  control.graph().drained_end(overlay);
  co_return put;
}

io::Task<Done> put_overlay_on(Control& control, Arguments data) {
  const std::string& node_name = data.text("node");
  PLATTER_CO_ASSIGN(Node * node, find_node(control, node_name, node_name));
  const std::string& overlay_name = data.text("overlay");
  PLATTER_CO_ASSIGN(Node * overlay, find_node(control, overlay_name, overlay_name));
  PLATTER_CO_TRY(check_replaceable(*node));
  auto put = co_await put_drained(control, *overlay, *node);
  if (!put) co_return std::unexpected(Failure(put.error()));
  co_return Undo([&control, done = *put] { return take_off(control, done); });
}

io::Task<Result<void>> take_off_new(Control& control, block::PutOverlay put) {
  Node& overlay = *put.overlay;
  co_await block::take_off_overlay(control.graph(), std::move(put));
  co_return co_await block::release_node(control.graph(), overlay);
}

io::Task<Done> put_new_overlay_on(Control& control, Arguments data) {
  PLATTER_CO_ASSIGN(Node * node, find_node(control, data.text_or_empty("device"),
                                           data.text_or_empty("node-name")));
  if (!data.has("snapshot-node-name")) co_return refuse("New overlay node-name missing");
  if (control.graph().find(data.text("snapshot-node-name")) != nullptr)
    co_return refuse("New overlay node-name already in use");
  PLATTER_CO_TRY(check_replaceable(*node));
  PLATTER_CO_ASSIGN(Node * overlay, co_await open_overlay(control, *node, data));
  auto put = co_await put_drained(control, *overlay, *node);
  if (!put) {
    const Failure failure(put.error());
    PLATTER_CO_TRY(co_await block::release_node(control.graph(), *overlay));
    co_return std::unexpected(failure);
  }
  // Nobody has asked for the overlay by itself: it stays for those who use it.
  co_return Taken([&control, done = *put] { return take_off_new(control, done); },
                  [&control, overlay] { return block::release_node(control.graph(), *overlay); });
}

io::Task<Done> abort_transaction(Control&, Arguments) {
  co_return refuse("Transaction aborted using Abort action");
}

struct ActionKind {
  std::string_view name;
  io::Task<Done> (*run)(Control& control, Arguments data);
  // Which member of the data names the node that it changes; empty: none.
  std::string_view node_member;
};
constexpr ActionKind kKinds[] = {
    {"abort", abort_transaction, ""},
    {"block-dirty-bitmap-add", add_bitmap, "node"},
    {"block-dirty-bitmap-remove", remove_bitmap, "node"},
    {"block-dirty-bitmap-clear", clear_bitmap, "node"},
    {"block-dirty-bitmap-enable", switch_on_bitmap, "node"},
    {"block-dirty-bitmap-disable", switch_off_bitmap, "node"},
    {"block-dirty-bitmap-merge", merge_bitmaps, "node"},
    {"blockdev-snapshot", put_overlay_on, "node"},
    {"blockdev-snapshot-internal-sync", take_internal_snapshot, "device"},
    {"blockdev-snapshot-sync", put_new_overlay_on, "node-name"},
};

const ActionKind& kind_of(const Action& action) {
  const auto found = std::ranges::find(kKinds, action.kind, &ActionKind::name);
  PLATTER_ASSERT(found != std::end(kKinds));
  return *found;
}

// Drained sections of the nodes that exist.
std::vector<Node*> nodes_of(const block::Graph& graph, const std::vector<Action>& actions) {
  std::vector<Node*> nodes;
  for (const Action& action : actions) {
    const auto member = kind_of(action).node_member;
    if (member.empty()) continue;
    Node* node = graph.find(Arguments(*action.data).text_or_empty(member));
    if (node != nullptr && std::ranges::find(nodes, node) == nodes.end()) nodes.push_back(node);
  }
  return nodes;
}

io::Task<void> finish(Control& control, const Undo& last) {
  if (!last) co_return;
  if (Result<void> ended = co_await last(); !ended)
    control.graph().environment().log.warning(ended.error().message());
}

io::Task<Reply> run_drained(Control& control, const std::vector<Action>& actions,
                            std::vector<Taken>& taken) {
  for (const Action& action : actions) {
    Done done = co_await kind_of(action).run(control, Arguments(*action.data));
    if (done) {
      taken.push_back(std::move(*done));
      continue;
    }
    for (; !taken.empty(); taken.pop_back()) co_await finish(control, taken.back().undo);
    co_return std::unexpected(std::move(done).error());
  }
  co_return Json::object();
}

}  // namespace

io::Task<Reply> run_actions(Control& control, std::vector<Action> actions) {
  const std::vector<Node*> nodes = nodes_of(control.graph(), actions);
  for (Node* node : nodes) co_await control.graph().drained_begin(*node);
  std::vector<Taken> taken;
  Reply reply = co_await run_drained(control, actions, taken);
  for (Node* node : nodes) control.graph().drained_end(*node);
  for (const Taken& one : taken) co_await finish(control, one.settle);
  control.bitmaps().sweep();
  co_return reply;
}

}  // namespace platter::monitor
