// Commands about how nodes hang together.
#include <fmt/format.h>

#include <algorithm>

#include "base/try.h"
#include "block/named_nodes.h"
#include "block/reopen.h"
#include "monitor/commands.h"
#include "monitor/snapshots.h"

namespace platter::monitor {
namespace {

using block::Node;

// ---- change-backing-file

bool is_in_chain(const Node& top, const Node& wanted) {
  for (const Node* node = &top; node != nullptr;) {
    if (node == &wanted) return true;
    const block::Child* next = node->backing() != nullptr ? node->backing() : node->primary();
    node = next == nullptr ? nullptr : &next->node();
  }
  return false;
}

// What the node was told, but for being read-only. Its children stay as they are.
block::Reopening make_wish(Node& node, bool read_only) {
  block::Reopening wish{&node, node.options()};
  for (const auto& child : node.children()) {
    wish.options.erase(child->name());
    wish.options.take_subtree(child->name());
    if (child.get() == node.backing()) wish.options.set(child->name(), child->node().name());
  }
  wish.options.set("read-only", read_only);
  return wish;
}

io::Task<Result<void>> set_read_only(Control& control, Node& node, bool read_only) {
  std::vector<block::Reopening> wishes;
  wishes.push_back(make_wish(node, read_only));
  return block::reopen_nodes(control.graph(), std::move(wishes));
}

io::Task<Result<void>> record_backing(Control& control, Node& node, std::string filename) {
  block::Rebasable* rebasable = node.driver().rebasable();
  if (rebasable == nullptr) co_return fail_errno(ENOTSUP);
  std::string format;
  if (!filename.empty()) {
    const auto before = node.driver().backing_reference();
    format = before && !before->format.empty() ? before->format
                                               : std::string(node.backing()->node().type().name);
  }
  co_await control.graph().drained_begin(node);
  Result<void> changed =
      co_await rebasable->change_backing_reference({std::move(filename), std::move(format)});
  control.graph().drained_end(node);
  co_return changed;
}

io::Task<Reply> change_backing_file(Control& control, Arguments arguments) {
  PLATTER_CO_ASSIGN(Node * top, find_root(control, arguments.text("device")));
  PLATTER_CO_ASSIGN(Node * node, find_node(control, "", arguments.text("image-node-name")));
  if (node->backing() == nullptr)
    co_return refuse("not allowing backing file change on an image without a backing file");
  if (!is_in_chain(*top, *node)) {
    co_return refuse(
        fmt::format("'{}' and image file are not in the same chain", arguments.text("device")));
  }
  const bool read_only = node->read_only();
  if (read_only) PLATTER_CO_TRY(co_await set_read_only(control, *node, false));
  const std::string& filename = arguments.text("backing-file");
  Result<void> changed = co_await record_backing(control, *node, filename);
  if (!changed)
    changed.error().add_context(fmt::format("Could not change backing file to '{}'", filename));
  if (read_only) {
    Result<void> back = co_await set_read_only(control, *node, true);
    if (changed) changed = std::move(back);
  }
  PLATTER_CO_TRY(std::move(changed));
  co_return done();
}

// ---- x-blockdev-change

// The driver that takes and gives children while it is open (quorum) is not here.
Reply change_children(Control& control, Arguments arguments) {
  const std::string& parent_name = arguments.text("parent");
  PLATTER_ASSIGN(Node * parent, find_node(control, parent_name, parent_name));
  const bool removes = arguments.has("child");
  if (removes == arguments.has("node")) {
    return refuse(removes ? "The parameters child and node are in conflict"
                          : "Either child or node must be specified");
  }
  if (removes) {
    const std::string& child = arguments.text("child");
    if (parent->child(child) == nullptr)
      return refuse(fmt::format("Node '{}' does not have child '{}'", parent_name, child));
    return refuse(fmt::format("The node {} does not support removing a child", parent_name));
  }
  const std::string& node = arguments.text("node");
  if (control.graph().find(node) == nullptr)
    return refuse(fmt::format("Node '{}' not found", node));
  return refuse(fmt::format("The node {} does not support adding a child", parent_name));
}

io::Task<Reply> blockdev_change(Control& control, Arguments arguments) {
  return ready(change_children(control, arguments));
}

// ---- x-blockdev-set-iothread

// Any thread may run a request through any node, so that there is nothing to move: what is checked
// is whether the wish makes sense.
Reply check_iothread(Control& control, Arguments arguments) {
  const std::string& name = arguments.text("node-name");
  const Node* node = control.graph().find(name);
  if (node == nullptr) return refuse(fmt::format("Failed to find node with node-name='{}'", name));
  const auto uses = block::uses(*node);
  const bool has_backend =
      std::ranges::any_of(uses, [](const block::NodeUse& use) { return use.parent == nullptr; });
  if (has_backend && !arguments.flag("force")) {
    return refuse(
        fmt::format("Node {} is associated with a BlockBackend and could be in use (use "
                    "force=true to override this check)",
                    name));
  }
  const auto* thread = arguments.at("iothread").get_if<std::string>();
  if (thread != nullptr && !thread->empty() && !control.objects().io_thread(*thread))
    return refuse(fmt::format("Cannot find iothread {}", *thread));
  return done();
}

io::Task<Reply> set_iothread(Control& control, Arguments arguments) {
  return ready(check_iothread(control, arguments));
}

constexpr CommandFunction kCommands[] = {
    {"change-backing-file", change_backing_file},
    {"x-blockdev-change", blockdev_change},
    {"x-blockdev-set-iothread", set_iothread},
};

}  // namespace

std::span<const CommandFunction> graph_commands() { return kCommands; }

}  // namespace platter::monitor
