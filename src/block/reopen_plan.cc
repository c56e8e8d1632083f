#include "block/reopen_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "base/assert.h"
#include "base/try.h"

namespace platter::block {
namespace {

using Changes = std::vector<std::unique_ptr<NodeChange>>;

std::unexpected<Error> cannot_change(std::string_view option) {
  return fail(EINVAL, fmt::format("Cannot change the option '{}'", option));
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

NodeChange* find_change(const Changes& changes, const Node& node) {
  const auto found =
      std::ranges::find_if(changes, [&](const auto& change) { return change->node == &node; });
  return found == changes.end() ? nullptr : found->get();
}

class Planner {
 public:
  explicit Planner(Graph& graph) : graph_(graph) {}

  Result<Changes> make(std::vector<Reopening> wishes) {
    for (Reopening& wish : wishes) {
      if (find(*wish.node) != nullptr)
        return fail(EINVAL, fmt::format("Node '{}' is named twice", wish.node->name()));
      PLATTER_TRY(add(*wish.node, std::move(wish.options), top_level_settings(*wish.node), true));
    }
    // Their children come behind them.
    for (size_t i = 0; i < changes_.size(); ++i) PLATTER_TRY(plan_children(*changes_[i]));
    sort();
    return std::move(changes_);
  }

 private:
  NodeChange* find(const Node& node) const { return find_change(changes_, node); }

  static NodeOptions top_level_settings(const Node& node) {
    NodeOptions settings{.flags = node.state().flags};
    settings.flags.read_only = settings.flags.auto_read_only = false;
    settings.flags.direct = settings.flags.unmap = false;
    return settings;
  }

  // As when it is opened as a child (block/open.cc).
  static NodeOptions inherited_settings(const NodeChange& parent, const Child& child) {
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
    auto change = std::make_unique<NodeChange>();
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

  Result<void> plan_children(NodeChange& change) {
    for (const auto& child : change.node->children()) PLATTER_TRY(plan_child(change, *child));
    if (change.node->type().supports_backing && change.node->backing() == nullptr)
      PLATTER_TRY(plan_new_backing(change));
    return settle_driver_options(change);
  }

  Result<void> plan_child(NodeChange& change, Child& child) {
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

  Result<void> plan_new_backing(NodeChange& change) {
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

  static std::unexpected<Error> backing_is_missing(const NodeChange& change) {
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

  Result<void> replace(NodeChange& change, Child* child, Node* target, std::string_view name) {
    if (target != nullptr && reaches(*target, *change.node)) {
      return fail(EINVAL, fmt::format("Making '{}' a {} child of '{}' would create a cycle",
                                      target->name(), name, change.node->name()));
    }
    change.children.push_back({child, target});
    return {};
  }

  Result<void> reopen_child(const NodeChange& parent, Child& child, base::Options options) {
    Node& node = child.node();
    if (find(node) != nullptr)
      return fail(EINVAL, fmt::format("Node '{}' is named twice", node.name()));
    return add(node, std::move(options), inherited_settings(parent, child), false);
  }

  // One that is its parent's alone takes over what its own options do not say.
  Result<void> keep_child(const NodeChange& parent, Child& child) {
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
  static Result<void> settle_driver_options(NodeChange& change) {
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
    Changes sorted;
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
  Changes changes_;
};

}  // namespace

Result<ReopenPlan> ReopenPlan::make(Graph& graph, std::vector<Reopening> wishes) {
  PLATTER_ASSIGN(Changes changes, Planner(graph).make(std::move(wishes)));
  return ReopenPlan(std::move(changes));
}

NodeChange* ReopenPlan::find(const Node& node) const { return find_change(changes_, node); }

}  // namespace platter::block
