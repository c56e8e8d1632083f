// Nodes that are kept open by their name, used or not: what a monitor adds and deletes.
//
// Nothing stands above a kept node until something names it (another node's child, an export): it
// then has a backend or a parent of its own. Adding and deleting are changes of the graph, one at a
// time with all others.
#pragma once

#include <string>
#include <vector>

#include "block/graph.h"

namespace platter::block {

// Opens what `request` says and keeps it. EINVAL: it has no node-name.
io::Task<Result<Node*>> add_node(Graph& graph, OpenRequest request);

// Lets go of a kept node, and so closes it. EBUSY: it is used, and stays. Another error is that of
// closing: the node is gone all the same.
io::Task<Result<void>> delete_node(Graph& graph, Node& node);

// Keeps it no longer: it closes when, or if, nothing uses it.
io::Task<Result<void>> release_node(Graph& graph, Node& node);

bool is_kept(const Node& node);

// One edge to a node, as it was when asked.
struct NodeUse {
  Node* parent = nullptr;  // null: a backend
  std::string name;        // of the edge: "file"
  Permissions needed;
  Permissions shared;
};
std::vector<NodeUse> uses(const Node& node);

// What a node was told, or has from the node that it was opened for.
struct NodeSettings {
  bool cache_direct = false;
  bool cache_no_flush = false;
  DetectZeroes detect_zeroes = DetectZeroes::kOff;
};
NodeSettings settings(const Node& node);

}  // namespace platter::block
