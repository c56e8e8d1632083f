#include "block/overlay.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/try.h"
#include "block/filename.h"
#include "block/graph_state.h"
#include "block/node_state.h"

namespace platter::block {
namespace {

bool reaches(const Node& from, const Node& target) {
  if (&from == &target) return true;
  return std::ranges::any_of(from.children(),
                             [&](const auto& child) { return reaches(child->node(), target); });
}

Result<void> check(const Node& overlay, const Node& node) {
  if (overlay.state().needed.has(Permission::kConsistentRead))
    return fail(EBUSY, "The overlay is already in use");
  if (reaches(node, overlay)) {
    return fail(EINVAL, fmt::format("Making '{}' a backing child of '{}' would create a cycle",
                                    node.name(), overlay.name()));
  }
  if (!overlay.type().supports_backing)
    return fail(EINVAL, "The overlay does not support backing images");
  if (overlay.backing() != nullptr) return fail(EINVAL, "The overlay already has a backing image");
  return {};
}

void move_edges(const std::vector<Child*>& edges, Node& to) {
  for (Child* edge : edges) {
    unlink_edge(*edge);
    link_edge(*edge, to);
  }
}

void drop_backing(Node& overlay) {
  Node::State& s = overlay.state();
  std::unique_ptr<Child> edge = std::move(s.children.back());
  s.children.pop_back();
  s.backing = nullptr;
  detach_edge(*edge);
}

}  // namespace

io::Task<Result<PutOverlay>> put_overlay(Graph& graph, Node& overlay, Node& node) {
  auto change = co_await graph.state().changes.lock();
  PLATTER_CO_TRY(check(overlay, node));
  Node::State& s = overlay.state();
  PutOverlay put{&overlay, &node, node.state().parents, s.filename, s.backing_overridden};
  // The users go first: they may do what a backing file's other users may not.
  move_edges(put.moved, overlay);
  auto edge = std::make_unique<Child>();
  ChildAccess::name(*edge) = "backing";
  ChildAccess::roles(*edge) = ChildRole::kCow;
  ChildAccess::parent(*edge) = &overlay;
  const auto wish = permissions_by_role(*edge, s.needed, s.shared);
  ChildAccess::set_permissions(*edge, wish.needed, wish.shared);
  link_edge(*edge, node);
  s.backing = edge.get();
  s.children.push_back(std::move(edge));
  Result<void> allowed = refresh_permissions({&overlay, &node});
  if (!allowed) {
    move_edges(put.moved, node);
    drop_backing(overlay);
    co_return std::unexpected(std::move(allowed).error());
  }
  s.backing_overridden = true;
  s.filename = reopening_name(overlay);
  co_return put;
}

io::Task<void> take_off_overlay(Graph& graph, PutOverlay put) {
  auto change = co_await graph.state().changes.lock();
  move_edges(put.moved, *put.node);
  drop_backing(*put.overlay);
  if (Result<void> back = refresh_permissions({put.node, put.overlay}); !back)
    graph.environment().log.warning(back.error().message());
  put.overlay->state().filename = put.filename;
  put.overlay->state().backing_overridden = put.backing_overridden;
}

}  // namespace platter::block
