#include "monitor/snapshots.h"

#include <fmt/format.h>

#include "base/try.h"
#include "block/named_nodes.h"
#include "block/registry.h"
#include "monitor/commands.h"

namespace platter::monitor {

using block::Node;

std::expected<Node*, Failure> find_root(Control& control, const std::string& name) {
  auto found = find_node(control, name, name);
  if (!found) return found;
  for (const block::NodeUse& use : block::uses(**found)) {
    if (use.parent != nullptr) return refuse("Need a root block node");
  }
  return found;
}

io::Task<std::expected<std::string, Failure>> take_snapshot(Control& control, Node& node,
                                                            std::string name) {
  if (node.read_only()) co_return refuse(fmt::format("Device '{}' is read only", node.name()));
  block::SnapshotStore* store = node.driver().snapshot_store();
  if (store == nullptr) {
    co_return refuse(
        fmt::format("Block format '{}' used by device '{}' does not support internal "
                    "snapshots",
                    node.type().name, node.name()));
  }
  for (const auto& snapshot : store->snapshots()) {
    if (snapshot.name != name) continue;
    co_return refuse(
        fmt::format("Snapshot with name '{}' already exists on device '{}'", name, node.name()));
  }
  if (name.empty()) co_return refuse("Name is empty");
  const uint64_t now = control.microseconds();
  constexpr uint64_t kPerSecond = 1'000'000;
  Result<void> taken = co_await store->create_snapshot(
      {.id = {},
       .name = std::move(name),
       .date_seconds = now / kPerSecond,
       .date_nanoseconds = static_cast<uint32_t>(now % kPerSecond * 1000)});
  if (!taken) {
    co_return std::unexpected(Failure(std::move(taken).error().with_context(
        fmt::format("Failed to create snapshot on device '{}'", node.name()))));
  }
  co_return store->snapshots().back().id;
}

io::Task<std::expected<Node*, Failure>> open_overlay(Control& control, const Node& node,
                                                     Arguments wish) {
  const std::string& filename = wish.text("snapshot-file");
  const std::string format = wish.has("format") ? wish.text("format") : "qcow2";
  if (wish.text_or_empty("mode") != "existing") {
    const auto* type = control.graph().environment().registry.find(format);
    if (type == nullptr) co_return refuse(fmt::format("Unknown file format '{}'", format));
    if (!type->supports_backing)
      co_return refuse(fmt::format("Backing file not supported for file format '{}'", format));
    if (filename == node.filename()) {
      co_return refuse(
          "Error: Trying to create an image with the same filename as the backing "
          "file");
    }
    block::CreateRequest create{.filename = filename, .format = format, .options = {}};
    create.options.set("size", node.size());
    create.options.set("backing_file", node.filename());
    create.options.set("backing_fmt", std::string(node.type().name));
    Result<void> created = co_await control.graph().create(std::move(create));
    PLATTER_CO_TRY(std::move(created));
  }
  block::OpenRequest open;
  open.filename = filename;
  open.format = format;
  open.options.set("node-name", wish.text("snapshot-node-name"));
  open.options.set("backing", nullptr);
  open.flags = {.read_only = false};
  open.policy = control.policy();
  PLATTER_CO_ASSIGN(Node * overlay, co_await block::add_node(control.graph(), std::move(open)));
  co_return overlay;
}

Result<void> check_replaceable(const Node& node) {
  for (const block::NodeUse& use : block::uses(node)) {
    if (use.parent == nullptr || use.parent->backing() == nullptr) continue;
    if (&use.parent->backing()->node() != &node) continue;
    return fail(EBUSY, fmt::format("Node '{}' is busy: node is used as backing hd of '{}'",
                                   node.name(), use.parent->name()));
  }
  return {};
}

}  // namespace platter::monitor
