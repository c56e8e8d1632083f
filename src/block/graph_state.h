// What a graph holds. For this room alone.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "block/graph.h"
#include "block/in_flight.h"
#include "io/sync.h"

namespace platter::block {

struct Graph::State {
  State(Graph& the_graph, Environment the_environment)
      : graph(the_graph), environment(the_environment) {}

  Graph& graph;
  Environment environment;
  io::AsyncMutex changes;  // opening, closing, replacing: one at a time
  std::mutex structure;  // Node::State::parents and `nodes`, for those who look while requests run
  std::vector<std::unique_ptr<Node>> nodes;
  unsigned names_given = 0;
  struct Drained {
    Node* node;
    std::vector<std::shared_ptr<InFlight>> users;
  };
  std::vector<Drained> drained;           // guarded by `structure`
  std::vector<Backend::State*> backends;  // those that are open; guarded by `structure`
};

// The backends from which `node` can be reached.
std::vector<std::shared_ptr<InFlight>> users_above(const Node& node);

// ---- Edges and permissions (permissions.cc). All of it under Graph::State::changes.

// Settles the permissions of `nodes` and everything below them after an edge was added, removed or
// given other wishes. On a refusal nothing has changed.
Result<void> refresh_permissions(const std::vector<Node*>& nodes);
// Links `edge` (name, roles, parent and wishes are set) to `node`, if the permissions allow it.
Result<void> attach_edge(Child& edge, Node& node);
// Loosening permissions never fails.
void detach_edge(Child& edge);
// The pointers alone.
void link_edge(Child& edge, Node& node);
void unlink_edge(Child& edge);

// ---- Nodes (open.cc, close.cc)

struct NodeRequest {
  std::string filename;
  std::string driver;     // empty: unknown
  base::Options options;  // the node's own, dotted
  OpenFlags flags;
  bool no_flush = false;
  bool force_share = false;
  bool protocol = false;  // a driver that is not named is a protocol
  const OpenPolicy* policy = nullptr;
  const struct ChainLink* above = nullptr;  // the images that name this one, nearest first
};

// An image in the chain that is being opened.
struct ChainLink {
  const ChainLink* above;
  uint64_t device;
  uint64_t inode;
  std::string filename;
  unsigned depth;
};

// Of the image itself. Takes what it needs out of `request`, which outlives it.
NodeRequest node_request(OpenRequest& request);

// On failure nothing stays open. The node has no parent yet: attach one or close it.
io::Task<Result<Node*>> open_node(Graph::State& graph, NodeRequest request);
// Closes `node` if nothing uses it and it is not kept, and what only it used.
io::Task<Result<void>> close_if_unused(Graph::State& graph, Node& node);

}  // namespace platter::block
