// Permissions: what every user of a node needs and shares, kept consistent over the graph.
//
// A change is proposed at some edges and followed downwards, parents before children. Nodes are
// first given the union of what they had and what they shall have (a file takes the locks it
// lacks), then exactly what they shall have (it drops the others): the second step only gives
// things back, so it cannot fail, and nor can the way back from a refusal.

#include <algorithm>

#include <fmt/format.h>

#include "base/try.h"
#include "block/graph_state.h"
#include "block/node_state.h"

namespace platter::block {

namespace {

std::string user_of(const Child& edge) {
  if (edge.parent() == nullptr) return "an unnamed block device";
  return fmt::format("node '{}'", edge.parent()->name());
}

Error conflict(const Node& node, const Child& needs, const Child& refuses,
               Permissions permissions) {
  return Error(EPERM,
               fmt::format("Permission conflict on node '{}': permissions '{}' are both required "
                           "by {} (uses node '{}' as '{}' child) and unshared by {} (uses node "
                           "'{}' as '{}' child).",
                           node.name(), permission_names(permissions), user_of(needs), node.name(),
                           needs.name(), user_of(refuses), node.name(), refuses.name()));
}

class PermissionUpdate {
 public:
  Result<void> run(const std::vector<Node*>& roots) {
    for (Node* root : roots) visit(*root);
    std::reverse(order_.begin(), order_.end());
    Result<void> settled = settle();
    if (settled) settled = prepare();
    if (!settled) {
      for (auto& old : edges_) {
        ChildAccess::set_permissions(*old.edge, old.needed, old.shared);
      }
      return settled;
    }
    commit();
    return {};
  }

 private:
  struct OldEdge {
    Child* edge;
    Permissions needed;
    Permissions shared;
  };
  struct NodeChange {
    Node* node;
    Permissions needed;
    Permissions shared;
  };

  void visit(Node& node) {
    if (std::ranges::find(seen_, &node) != seen_.end()) return;
    seen_.push_back(&node);
    for (const auto& child : node.children()) visit(child->node());
    order_.push_back(&node);
  }

  Result<void> settle() {
    for (Node* node : order_) {
      const Node::State& s = node->state();
      NodeChange change{node, {}, kAllPermissions};
      for (const Child* parent : s.parents) {
        change.needed |= parent->needed();
        change.shared = change.shared & parent->shared();
      }
      PLATTER_TRY(check_conflicts(*node));
      PLATTER_TRY(check_capability(*node, change.needed));
      PLATTER_TRY(check_zones(*node));
      for (const auto& child : s.children) propose(*node, *child, change);
      changes_.push_back(change);
    }
    return {};
  }

  static Result<void> check_conflicts(const Node& node) {
    for (const Child* one : node.state().parents) {
      for (const Child* other : node.state().parents) {
        if (one == other) continue;
        const Permissions refused = one->needed().without(other->shared());
        if (!refused.empty()) return std::unexpected(conflict(node, *one, *other, refused));
      }
    }
    return {};
  }

  static Result<void> check_capability(const Node& node, Permissions needed) {
    const Node::State& s = node.state();
    const bool writes = !(needed & (Permission::kWrite | Permission::kWriteUnchanged)).empty();
    if (writes && s.flags.read_only) return fail(EPERM, "Block node is read-only");
    if (s.driver == nullptr || !writes || needed.has(Permission::kResize)) return {};
    // A padded write would grow such a node.
    if (node.size() % s.driver->limits().request_alignment != 0) {
      return fail(EPERM,
                  "Cannot get 'write' permission without 'resize': Image size is not a multiple of "
                  "request alignment");
    }
    return {};
  }

  // Formats write where they like. A filter shows the zones below; who has a backend asks for them.
  static Result<void> check_zones(const Node& node) {
    if (node.state().driver == nullptr) return {};
    for (const Child* edge : node.state().parents) {
      if (edge->parent() == nullptr || edge->roles().has(ChildRole::kFiltered)) continue;
      if (!edge->needed().has(Permission::kWrite)) continue;
      PLATTER_TRY(node.check_written_anywhere(
          fmt::format("block format '{}'", edge->parent()->type().name)));
    }
    return {};
  }

  void propose(const Node& node, Child& child, const NodeChange& change) {
    const Node::State& s = node.state();
    Driver::ChildPermissions wish =
        s.driver != nullptr ? s.driver->child_permissions(child, change.needed, change.shared)
                            : permissions_by_role(child, change.needed, change.shared);
    if (s.force_share) wish.shared = kAllPermissions;
    edges_.push_back({&child, child.needed(), child.shared()});
    ChildAccess::set_permissions(child, wish.needed, wish.shared);
  }

  Result<void> prepare() {
    for (size_t i = 0; i < changes_.size(); ++i) {
      const NodeChange& change = changes_[i];
      Node::State& s = change.node->state();
      if (s.driver == nullptr) continue;
      Result<void> prepared =
          s.driver->set_permissions(s.needed | change.needed, s.shared & change.shared);
      if (prepared) continue;
      // Back to what it had: only gives back.
      for (size_t undo = i + 1; undo-- > 0;) {
        Node::State& done = changes_[undo].node->state();
        if (done.driver == nullptr) continue;
        if (Result<void> undone = done.driver->set_permissions(done.needed, done.shared); !undone) {
          done.graph.environment().log.warning(undone.error().message());
        }
      }
      return prepared;
    }
    return {};
  }

  void commit() {
    for (const NodeChange& change : changes_) {
      Node::State& s = change.node->state();
      s.needed = change.needed;
      s.shared = change.shared;
      if (s.driver == nullptr) continue;
      if (Result<void> done = s.driver->set_permissions(s.needed, s.shared); !done) {
        s.graph.environment().log.warning(done.error().message());
      }
    }
  }

  std::vector<Node*> seen_;
  std::vector<Node*> order_;  // parents before children
  std::vector<OldEdge> edges_;
  std::vector<NodeChange> changes_;
};

}  // namespace

Result<void> refresh_permissions(const std::vector<Node*>& nodes) {
  return PermissionUpdate().run(nodes);
}

void link_edge(Child& edge, Node& node) {
  Graph::State& graph = node.graph().state();
  std::lock_guard guard(graph.structure);
  ChildAccess::node(edge) = &node;
  Driver* driver = node.state().driver.get();
  ChildAccess::debug_points(edge) = driver != nullptr ? driver->debug_points() : nullptr;
  node.state().parents.push_back(&edge);
}

void unlink_edge(Child& edge) {
  Node& node = edge.node();
  Graph::State& graph = node.graph().state();
  std::lock_guard guard(graph.structure);
  std::erase(node.state().parents, &edge);
  ChildAccess::node(edge) = nullptr;
}

Result<void> attach_edge(Child& edge, Node& node) {
  link_edge(edge, node);
  Result<void> allowed = refresh_permissions({&node});
  if (!allowed) unlink_edge(edge);
  return allowed;
}

void detach_edge(Child& edge) {
  Node& node = edge.node();
  unlink_edge(edge);
  if (Result<void> loosened = refresh_permissions({&node}); !loosened) {
    node.graph().environment().log.warning(loosened.error().message());
  }
}

}  // namespace platter::block
