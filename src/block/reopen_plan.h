// What a reopening is to change, found out before anything is: every node that it concerns, with
// what its driver, its flags and its children are to be. Of block/reopen.cc alone.
#pragma once

#include <memory>
#include <vector>

#include "base/options.h"
#include "block/graph.h"
#include "block/node_options.h"
#include "block/node_state.h"
#include "block/reopen.h"

namespace platter::block {

// Another node for a child, or none.
struct NewChild {
  Child* child = nullptr;  // null: there is none yet
  Node* target = nullptr;  // null: none from now on
};

// What becomes of one node.
struct NodeChange {
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

class ReopenPlan {
 public:
  // Changes nothing.
  static Result<ReopenPlan> make(Graph& graph, std::vector<Reopening> wishes);

  // Parents before children.
  const std::vector<std::unique_ptr<NodeChange>>& changes() const { return changes_; }
  NodeChange* find(const Node& node) const;  // null: it is not concerned

 private:
  explicit ReopenPlan(std::vector<std::unique_ptr<NodeChange>> changes)
      : changes_(std::move(changes)) {}

  std::vector<std::unique_ptr<NodeChange>> changes_;
};

}  // namespace platter::block
