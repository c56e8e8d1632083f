#include "block/reopen.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "base/try.h"
#include "block/filename.h"
#include "block/graph_state.h"
#include "block/reopen_plan.h"

namespace platter::block {
namespace {

NodeOptions settings_of(const Node& node) {
  const Node::State& s = node.state();
  return {.flags = s.flags,
          .no_flush = s.no_flush,
          .force_share = s.force_share,
          .detect_zeroes = s.detect_zeroes};
}

class Reopener {
 public:
  Reopener(Graph& graph, const ReopenPlan& plan) : graph_(graph), plan_(plan) {}

  // In a drained section of all the nodes. On an error everything is as it was.
  io::Task<Result<void>> run() {
    PLATTER_CO_TRY(check_writers());
    // While they may still write: what a driver holds back goes to its file.
    for (const auto& change : plan_.changes()) {
      if (!change->locks_writers_out()) continue;
      Result<void> done = co_await tell_driver(*change);
      if (!done) {
        co_await tell_back();
        co_return done;
      }
    }
    Result<void> changed = swap_graph();
    if (changed) {
      changed = co_await tell_others();
      if (changed) changed = check_bitmaps();
      if (!changed) swap_graph_back();
    }
    if (!changed) {
      co_await tell_back();
      co_return changed;
    }
    commit();
    co_return Result<void>();
  }

  // Nodes that lost a parent. After the drained section.
  io::Task<Result<void>> close_unused() {
    Result<void> result;
    for (Node* node : left_) {
      Result<void> closed = co_await close_if_unused(graph_.state(), *node);
      if (result && !closed) result = std::move(closed);
    }
    co_return result;
  }

 private:
  struct OldSettings {
    Node* node;
    NodeOptions settings;
  };
  struct OldChild {
    Node* parent;
    Child* child;
    Node* target;                     // null: there was none
    std::unique_ptr<Child> detached;  // the edge, where it was taken away
    bool overridden;
  };
  struct Told {
    NodeChange* change;
    OpenFlags flags_before;
  };

  Result<void> check_writers() const {
    for (const auto& change : plan_.changes()) {
      if (!change->locks_writers_out()) continue;
      for (const Child* edge : change->state().parents) {
        if (!edge->needed().has(Permission::kWrite)) continue;
        const NodeChange* parent =
            edge->parent() != nullptr ? plan_.find(*edge->parent()) : nullptr;
        if (parent != nullptr && parent->locks_writers_out()) continue;
        return fail(EPERM, fmt::format("Read-only block node '{}' cannot support read-write users",
                                       change->node->name()));
      }
    }
    return {};
  }

  io::Task<Result<void>> tell_driver(NodeChange& change) {
    if (!change.concerns_driver) co_return Result<void>();
    const OpenFlags before = change.state().flags;
    const auto old = std::ranges::find(settings_, change.node, &OldSettings::node);
    PLATTER_CO_TRY(co_await change.node->driver().reopenable()->reopen(change.of_driver,
                                                                       change.settings.flags));
    told_.push_back({&change, old != settings_.end() ? old->settings.flags : before});
    co_return Result<void>();
  }

  // Children before parents: what a format writes, its file takes.
  io::Task<Result<void>> tell_others() {
    const auto& changes = plan_.changes();
    for (size_t i = changes.size(); i-- > 0;) {
      NodeChange& change = *changes[i];
      const bool told = std::ranges::find(told_, &change, &Told::change) != told_.end();
      if (told) continue;
      Result<void> done = co_await tell_driver(change);
      if (done) continue;
      // Those that were locked out come later, when they may write again.
      while (!told_.empty() && !told_.back().change->settings.flags.read_only)
        co_await tell_back_last();
      co_return done;
    }
    co_return Result<void>();
  }

  // Another window of a file has another size.
  Result<void> check_bitmaps() const {
    for (const auto& change : plan_.changes()) {
      for (const auto& bitmap : change->state().recorded_in)
        PLATTER_TRY(bitmap->check_size(change->node->size()));
    }
    return {};
  }

  io::Task<void> tell_back_last() {
    const Told last = told_.back();
    told_.pop_back();
    Result<void> back = co_await last.change->node->driver().reopenable()->reopen(
        last.change->of_driver_before, last.flags_before);
    if (!back) graph_.environment().log.warning(back.error().message());
  }
  io::Task<void> tell_back() {
    while (!told_.empty()) co_await tell_back_last();
  }

  static void apply_settings(Node::State& s, const NodeOptions& settings) {
    s.flags = settings.flags;
    s.no_flush = settings.no_flush;
    s.detect_zeroes = settings.detect_zeroes;
  }

  std::vector<Node*> touched() const {
    std::vector<Node*> nodes;
    for (const auto& change : plan_.changes()) nodes.push_back(change->node);
    for (const OldChild& old : children_) {
      if (old.target != nullptr) nodes.push_back(old.target);
    }
    return nodes;
  }

  Result<void> swap_graph() {
    for (const auto& change : plan_.changes()) {
      settings_.push_back({change->node, settings_of(*change->node)});
      apply_settings(change->state(), change->settings);
      for (const NewChild& child : change->children) swap_child(*change->node, child);
    }
    Result<void> allowed = refresh_permissions(touched());
    if (!allowed) swap_graph_back();
    return allowed;
  }

  void swap_child(Node& parent, const NewChild& wish) {
    Node::State& s = parent.state();
    OldChild old{&parent, wish.child, wish.child != nullptr ? &wish.child->node() : nullptr,
                 nullptr, s.backing_overridden};
    if (wish.child == nullptr) {
      auto edge = std::make_unique<Child>();
      ChildAccess::name(*edge) = "backing";
      ChildAccess::roles(*edge) = ChildRole::kCow;
      ChildAccess::parent(*edge) = &parent;
      const auto wanted = permissions_by_role(*edge, s.needed, s.shared);
      ChildAccess::set_permissions(*edge, wanted.needed, wanted.shared);
      old.child = s.backing = edge.get();
      s.children.push_back(std::move(edge));
    } else {
      unlink_edge(*wish.child);
    }
    if (wish.target != nullptr) {
      link_edge(*old.child, *wish.target);
    } else {
      old.detached = take_edge(s, *wish.child);
    }
    if (s.backing == nullptr || s.backing == old.child)
      s.backing_overridden = !is_the_recorded_one(parent, wish.target);
    children_.push_back(std::move(old));
  }

  // Whether the image itself names this backing file.
  static bool is_the_recorded_one(const Node& parent, const Node* backing) {
    const auto recorded = parent.driver().backing_reference();
    if (!recorded || backing == nullptr) return !recorded && backing == nullptr;
    const auto name = resolve_backing_name(parent, recorded->filename);
    return name && *name == backing->filename() && recorded->format == backing->type().name;
  }

  static std::unique_ptr<Child> take_edge(Node::State& s, const Child& child) {
    const auto found = std::ranges::find(s.children, &child, &std::unique_ptr<Child>::get);
    std::unique_ptr<Child> edge = std::move(*found);
    s.children.erase(found);
    if (s.backing == &child) s.backing = nullptr;
    return edge;
  }

  void swap_graph_back() {
    std::vector<Node*> nodes = touched();
    for (; !children_.empty(); children_.pop_back()) swap_child_back(children_.back(), nodes);
    for (const OldSettings& old : settings_) apply_settings(old.node->state(), old.settings);
    if (Result<void> back = refresh_permissions(nodes); !back)
      graph_.environment().log.warning(back.error().message());
  }

  static void swap_child_back(OldChild& old, std::vector<Node*>& nodes) {
    Node::State& s = old.parent->state();
    s.backing_overridden = old.overridden;
    if (old.detached != nullptr) {
      link_edge(*old.detached, *old.target);
      s.backing = old.detached.get();
      s.children.push_back(std::move(old.detached));
      return;
    }
    nodes.push_back(&old.child->node());
    unlink_edge(*old.child);
    if (old.target != nullptr) {
      link_edge(*old.child, *old.target);
    } else {
      take_edge(s, *old.child).reset();
    }
  }

  void commit() {
    for (const auto& change : plan_.changes()) change->state().options = change->options;
    std::vector<Node*> prepared;
    for (const auto& change : plan_.changes()) prepare_above(*change->node, prepared);
    // From below: limits and names are made of those of the children.
    for (Node* node : prepared) {
      node->state().prepare_requests();
      node->state().filename = reopening_name(*node);
      fit_bitmaps(*node);
    }
    for (const OldChild& old : children_) {
      if (old.target != nullptr) left_.push_back(old.target);
    }
  }

  void fit_bitmaps(const Node& node) const {
    for (const auto& bitmap : node.state().recorded_in) {
      if (bitmap->size() == node.size()) continue;
      if (Result<void> fits = bitmap->resize(node.size()); !fits)
        graph_.environment().log.warning(fits.error().message());
    }
  }

  // `order`: children before parents.
  void prepare_above(Node& node, std::vector<Node*>& order) const {
    std::erase(order, &node);
    order.push_back(&node);
    for (const Child* edge : node.state().parents) {
      if (edge->parent() != nullptr) prepare_above(*edge->parent(), order);
    }
  }

  Graph& graph_;
  const ReopenPlan& plan_;
  std::vector<OldSettings> settings_;
  std::vector<OldChild> children_;
  std::vector<Told> told_;
  std::vector<Node*> left_;
};

}  // namespace

io::Task<Result<void>> reopen_nodes(Graph& graph, std::vector<Reopening> wishes) {
  auto turn = co_await graph.state().changes.lock();
  PLATTER_CO_ASSIGN(const ReopenPlan plan, ReopenPlan::make(graph, std::move(wishes)));
  Reopener reopener(graph, plan);
  for (const auto& change : plan.changes()) co_await graph.drained_begin(*change->node);
  Result<void> reopened = co_await reopener.run();
  for (const auto& change : plan.changes()) graph.drained_end(*change->node);
  if (reopened) reopened = co_await reopener.close_unused();
  co_return reopened;
}

}  // namespace platter::block
