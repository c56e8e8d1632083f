#include "block/reopen.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "base/try.h"
#include "block/filename.h"
#include "block/graph_state.h"
#include "block/node_options.h"
#include "block/node_state.h"

namespace platter::block {
namespace {

std::unexpected<Error> cannot_change(std::string_view option) {
  return fail(EINVAL, fmt::format("Cannot change the option '{}'", option));
}

// Another node for a child, or none.
struct NewChild {
  Child* child = nullptr;  // null: there is none yet
  Node* target = nullptr;  // null: none from now on
};

// What becomes of one node.
struct Change {
  Node* node = nullptr;
  bool by_name = false;  // it was asked for, not only reached from its parent
  NodeOptions settings;
  base::Options options;  // its own
  base::OptionSet of_driver, of_driver_before;
  bool concerns_driver = false;
  std::vector<NewChild> children;

  Node::State& state() const { return node->state(); }
  bool locks_writers_out() const { return settings.flags.read_only && !node->read_only(); }
};

NodeOptions settings_of(const Node& node) {
  const Node::State& s = node.state();
  return {.flags = s.flags,
          .no_flush = s.no_flush,
          .force_share = s.force_share,
          .detect_zeroes = s.detect_zeroes};
}

// What it was told itself, and not for its children.
base::Options own_options(const Node& node) {
  base::Options own = node.options();
  own.erase("backing");
  own.take_subtree("backing");
  return own;
}

bool reaches(const Node& from, const Node& target) {
  if (&from == &target) return true;
  return std::ranges::any_of(from.children(),
                             [&](const auto& child) { return reaches(child->node(), target); });
}

// ---- What is to be done

class Plan {
 public:
  explicit Plan(Graph& graph) : graph_(graph) {}

  Result<void> make(std::vector<Reopening> wishes) {
    for (Reopening& wish : wishes) {
      if (find(*wish.node) != nullptr)
        return fail(EINVAL, fmt::format("Node '{}' is named twice", wish.node->name()));
      PLATTER_TRY(add(*wish.node, std::move(wish.options), top_level_settings(*wish.node), true));
    }
    // Their children come behind them.
    for (size_t i = 0; i < changes_.size(); ++i) PLATTER_TRY(plan_children(*changes_[i]));
    sort();
    return {};
  }

  // Parents before children.
  const std::vector<std::unique_ptr<Change>>& changes() const { return changes_; }
  Change* find(const Node& node) const {
    const auto found =
        std::ranges::find_if(changes_, [&](const auto& change) { return change->node == &node; });
    return found == changes_.end() ? nullptr : found->get();
  }

 private:
  static NodeOptions top_level_settings(const Node& node) {
    NodeOptions settings{.flags = node.state().flags};
    settings.flags.read_only = settings.flags.auto_read_only = false;
    settings.flags.direct = settings.flags.unmap = false;
    return settings;
  }

  // As when it is opened as a child (block/open.cc).
  static NodeOptions inherited_settings(const Change& parent, const Child& child) {
    NodeOptions settings{.flags = child.node().state().flags,
                         .no_flush = parent.settings.no_flush,
                         .force_share = parent.settings.force_share};
    const bool backing = child.roles().has(ChildRole::kCow);
    settings.flags.read_only = parent.settings.flags.read_only || backing;
    settings.flags.auto_read_only = parent.settings.flags.auto_read_only && !backing;
    settings.flags.direct = parent.settings.flags.direct;
    settings.flags.unmap = true;
    return settings;
  }

  Result<void> add(Node& node, base::Options options, NodeOptions settings, bool by_name) {
    auto change = std::make_unique<Change>();
    change->node = &node;
    change->by_name = by_name;
    const auto* share = options.find("force-share");
    const bool* wanted = share != nullptr ? std::get_if<bool>(share) : nullptr;
    if (wanted != nullptr && *wanted != node.state().force_share)
      return cannot_change("force-share");
    change->options = options;
    PLATTER_TRY(take_node_options(options, settings));
    if (!settings.node_name.empty() && settings.node_name != node.name())
      return cannot_change("node-name");
    if (!settings.driver.empty() && settings.driver != node.type().name)
      return cannot_change("driver");
    change->settings = std::move(settings);
    if (node.driver().reopenable() == nullptr) {
      return fail(ENOTSUP, fmt::format("Block format '{}' used by node '{}' does not support "
                                       "reopening files",
                                       node.type().name, node.name()));
    }
    changes_.push_back(std::move(change));
    return {};
  }

  Result<void> plan_children(Change& change) {
    for (const auto& child : change.node->children()) PLATTER_TRY(plan_child(change, *child));
    if (change.node->type().supports_backing && change.node->backing() == nullptr)
      PLATTER_TRY(plan_new_backing(change));
    return settle_driver_options(change);
  }

  Result<void> plan_child(Change& change, Child& child) {
    const std::string& name = child.name();
    base::Options own = change.options.take_subtree(name);
    const base::OptionValue* said = change.options.find(name);
    if (!own.empty()) {
      // Who was opened by itself is reopened by itself.
      if (child.node().state().kept) return cannot_change(name + ".driver");
      return reopen_child(change, child, std::move(own));
    }
    if (said == nullptr) {
      if (change.by_name && &child == change.node->backing()) return backing_is_missing(change);
      return keep_child(change, child);
    }
    PLATTER_ASSIGN(Node * target, find_target(*said));
    change.options.erase(name);
    if (target == &child.node()) return keep_child(change, child);
    if (name != "file" && name != "backing") return cannot_change(name);
    if (target == nullptr && &child != change.node->backing()) return cannot_change(name);
    return replace(change, &child, target, name);
  }

  Result<void> plan_new_backing(Change& change) {
    if (change.options.has_subtree("backing")) return cannot_change("backing.driver");
    const base::OptionValue* said = change.options.find("backing");
    if (said == nullptr) {
      if (change.by_name && change.node->driver().backing_reference())
        return backing_is_missing(change);
      return {};
    }
    PLATTER_ASSIGN(Node * target, find_target(*said));
    change.options.erase("backing");
    if (target == nullptr) return {};
    return replace(change, nullptr, target, "backing");
  }

  static std::unexpected<Error> backing_is_missing(const Change& change) {
    return fail(EINVAL, fmt::format("backing is missing for '{}'", change.node->name()));
  }

  // Null: there is to be none.
  Result<Node*> find_target(const base::OptionValue& said) const {
    const auto* name = std::get_if<std::string>(&said);
    if (name == nullptr || name->empty()) return nullptr;
    Node* node = graph_.find(*name);
    if (node == nullptr)
      return fail(ENOENT, fmt::format("Cannot find device='' nor node-name='{}'", *name));
    return node;
  }

  Result<void> replace(Change& change, Child* child, Node* target, std::string_view name) {
    if (target != nullptr && reaches(*target, *change.node)) {
      return fail(EINVAL, fmt::format("Making '{}' a {} child of '{}' would create a cycle",
                                      target->name(), name, change.node->name()));
    }
    change.children.push_back({child, target});
    return {};
  }

  Result<void> reopen_child(const Change& parent, Child& child, base::Options options) {
    Node& node = child.node();
    if (find(node) != nullptr)
      return fail(EINVAL, fmt::format("Node '{}' is named twice", node.name()));
    return add(node, std::move(options), inherited_settings(parent, child), false);
  }

  // One that is its parent's alone takes over what its own options do not say.
  Result<void> keep_child(const Change& parent, Child& child) {
    Node& node = child.node();
    if (find(node) != nullptr || node.state().kept || node.state().parents.size() != 1) return {};
    NodeOptions next = inherited_settings(parent, child);
    base::Options own = own_options(node);
    PLATTER_TRY(take_node_options(own, next));
    const OpenFlags& flags = node.state().flags;
    const bool same = next.flags.read_only == flags.read_only &&
                      next.flags.auto_read_only == flags.auto_read_only &&
                      next.flags.direct == flags.direct && next.no_flush == node.state().no_flush;
    if (same || node.driver().reopenable() == nullptr) return {};
    return add(node, own_options(node), inherited_settings(parent, child), false);
  }

  // What is left says something to the driver.
  static Result<void> settle_driver_options(Change& change) {
    const base::OptionSchema& schema = change.node->type().runtime_options;
    base::Options now = change.options;
    base::Options before = own_options(*change.node);
    NodeOptions unused;
    unused.flags.unmap = true;
    PLATTER_TRY(take_node_options(now, unused));
    PLATTER_TRY(take_node_options(before, unused));
    PLATTER_ASSIGN(change.of_driver, schema.take(now));
    PLATTER_ASSIGN(change.of_driver_before, schema.take(before));
    for (const base::OptionDef& def : schema.defs()) {
      if (same_value(def, change.of_driver, change.of_driver_before)) continue;
      if (def.changeable) {
        change.concerns_driver = true;
      } else if (change.of_driver.given(def.name)) {
        return cannot_change(def.name);
      } else {
        return fail(EINVAL,
                    fmt::format("Option '{}' cannot be reset to its default value", def.name));
      }
    }
    PLATTER_TRY(check_lists(now, before));
    const OpenFlags& next = change.settings.flags;
    const OpenFlags& flags = change.state().flags;
    change.concerns_driver = change.concerns_driver || next.read_only != flags.read_only ||
                             next.auto_read_only != flags.auto_read_only ||
                             next.direct != flags.direct || next.unmap != flags.unmap;
    return {};
  }

  static bool same_value(const base::OptionDef& def, const base::OptionSet& a,
                         const base::OptionSet& b) {
    if (!a.has(def.name) || !b.has(def.name)) return a.has(def.name) == b.has(def.name);
    switch (def.type) {
      case base::OptionType::kBool: return a.get_bool(def.name) == b.get_bool(def.name);
      case base::OptionType::kString: return a.get_string(def.name) == b.get_string(def.name);
      case base::OptionType::kNumber:
      case base::OptionType::kSize: break;
    }
    return a.get_number(def.name) == b.get_number(def.name);
  }

  // What no table describes has to be what it was.
  static Result<void> check_lists(const base::Options& now, const base::Options& before) {
    for (const auto& [key, value] : now.entries()) {
      const base::OptionValue* was = before.find(key);
      if (was == nullptr || *was != value) return cannot_change(key);
    }
    for (const auto& [key, value] : before.entries()) {
      if (now.find(key) == nullptr) return cannot_change(key);
    }
    return {};
  }

  void sort() {
    std::vector<std::unique_ptr<Change>> sorted;
    while (!changes_.empty()) {
      const auto top = std::ranges::find_if(changes_, [&](const auto& one) {
        return std::ranges::none_of(changes_, [&](const auto& other) {
          return other != one && reaches(*other->node, *one->node);
        });
      });
      PLATTER_ASSERT(top != changes_.end());
      sorted.push_back(std::move(*top));
      changes_.erase(top);
    }
    changes_ = std::move(sorted);
  }

  Graph& graph_;
  std::vector<std::unique_ptr<Change>> changes_;
};

// ---- Doing it

class Reopener {
 public:
  Reopener(Graph& graph, const Plan& plan) : graph_(graph), plan_(plan) {}

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
    Change* change;
    OpenFlags flags_before;
  };

  Result<void> check_writers() const {
    for (const auto& change : plan_.changes()) {
      if (!change->locks_writers_out()) continue;
      for (const Child* edge : change->state().parents) {
        if (!edge->needed().has(Permission::kWrite)) continue;
        const Change* parent = edge->parent() != nullptr ? plan_.find(*edge->parent()) : nullptr;
        if (parent != nullptr && parent->locks_writers_out()) continue;
        return fail(EPERM, fmt::format("Read-only block node '{}' cannot support read-write users",
                                       change->node->name()));
      }
    }
    return {};
  }

  io::Task<Result<void>> tell_driver(Change& change) {
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
      Change& change = *changes[i];
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
  const Plan& plan_;
  std::vector<OldSettings> settings_;
  std::vector<OldChild> children_;
  std::vector<Told> told_;
  std::vector<Node*> left_;
};

}  // namespace

io::Task<Result<void>> reopen_nodes(Graph& graph, std::vector<Reopening> wishes) {
  auto turn = co_await graph.state().changes.lock();
  Plan plan(graph);
  PLATTER_CO_TRY(plan.make(std::move(wishes)));
  Reopener reopener(graph, plan);
  for (const auto& change : plan.changes()) co_await graph.drained_begin(*change->node);
  Result<void> reopened = co_await reopener.run();
  for (const auto& change : plan.changes()) graph.drained_end(*change->node);
  if (reopened) reopened = co_await reopener.close_unused();
  co_return reopened;
}

}  // namespace platter::block
