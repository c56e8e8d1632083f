#include "block/named_nodes.h"

#include <fmt/format.h>

#include "base/try.h"
#include "block/graph_state.h"
#include "block/node_state.h"

namespace platter::block {

io::Task<Result<Node*>> add_node(Graph& graph, OpenRequest request) {
  if (request.options.find("node-name") == nullptr) {
    co_return fail(EINVAL, "'node-name' must be specified for the root node");
  }
  auto change = co_await graph.state().changes.lock();
  PLATTER_CO_ASSIGN(Node * node, co_await open_node(graph.state(), node_request(request)));
  node->state().kept = true;
  co_return node;
}

io::Task<Result<void>> delete_node(Graph& graph, Node& node) {
  auto change = co_await graph.state().changes.lock();
  PLATTER_ASSERT(node.state().kept);
  if (!node.state().parents.empty())
    co_return fail(EBUSY, fmt::format("Block device {} is in use", node.name()));
  node.state().kept = false;
  co_return co_await close_if_unused(graph.state(), node);
}

io::Task<Result<void>> release_node(Graph& graph, Node& node) {
  auto change = co_await graph.state().changes.lock();
  PLATTER_ASSERT(node.state().kept);
  node.state().kept = false;
  co_return co_await close_if_unused(graph.state(), node);
}

bool is_kept(const Node& node) { return node.state().kept; }

std::vector<NodeUse> uses(const Node& node) {
  std::vector<NodeUse> all;
  std::lock_guard guard(node.graph().state().structure);
  for (const Child* edge : node.state().parents) {
    all.push_back({edge->parent(), edge->name(), edge->needed(), edge->shared()});
  }
  return all;
}

NodeSettings settings(const Node& node) {
  const Node::State& s = node.state();
  return {.cache_direct = s.flags.direct,
          .cache_no_flush = s.no_flush,
          .detect_zeroes = s.detect_zeroes};
}

}  // namespace platter::block
