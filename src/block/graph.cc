#include "block/graph.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/try.h"
#include "block/backend_state.h"
#include "block/graph_state.h"
#include "block/node_state.h"

namespace platter::block {

Result<CacheMode> CacheMode::parse(std::string_view name) {
  if (name == "none" || name == "off") return CacheMode{.direct = true};
  if (name == "writeback") return CacheMode{};
  if (name == "writethrough") return CacheMode{.writeback = false};
  if (name == "directsync") return CacheMode{.direct = true, .writeback = false};
  if (name == "unsafe") return CacheMode{.no_flush = true};
  return fail(EINVAL, fmt::format("Invalid cache option: {}", name));
}

Graph::Graph(Environment environment) : state_(std::make_unique<State>(*this, environment)) {}
Graph::~Graph() { PLATTER_ASSERT(state_->nodes.empty()); }

const Graph::Environment& Graph::environment() const { return state_->environment; }

Node* Graph::find(std::string_view node_name) const {
  std::lock_guard guard(state_->structure);
  for (const auto& node : state_->nodes) {
    if (node->name() == node_name) return node.get();
  }
  return nullptr;
}

std::vector<Node*> Graph::nodes() const {
  std::lock_guard guard(state_->structure);
  std::vector<Node*> all;
  for (const auto& node : state_->nodes) all.push_back(node.get());
  return all;
}

static Result<std::unique_ptr<Backend>> make_backend(Graph& graph, Node& node, Permissions needed,
                                                     Permissions shared) {
  auto state = std::make_unique<Backend::State>();
  state->graph = &graph;
  state->closed = true;  // until it is attached
  ChildAccess::name(state->edge) = "root";
  ChildAccess::set_permissions(state->edge, needed, shared);
  ChildAccess::in_flight(state->edge) = state->in_flight;
  PLATTER_TRY(attach_edge(state->edge, node));
  state->closed = false;
  {
    std::lock_guard guard(graph.state().structure);
    graph.state().backends.push_back(state.get());
  }
  return std::make_unique<Backend>(std::move(state));
}

NodeRequest node_request(OpenRequest& request) {
  NodeRequest node;
  node.filename = std::move(request.filename);
  node.driver = std::move(request.format);
  node.options = std::move(request.options);
  node.flags = request.flags;
  node.flags.direct = node.flags.direct || request.cache.direct;
  node.flags.unmap = node.flags.unmap || request.discard_unmap;
  node.no_flush = request.cache.no_flush;
  node.force_share = request.force_share;
  node.policy = &request.policy;
  return node;
}

io::Task<Result<std::unique_ptr<Backend>>> Graph::open(OpenRequest request, Permissions needed,
                                                       Permissions shared) {
  auto change = co_await state_->changes.lock();
  const std::string name = request.filename.empty() ? request.description : request.filename;
  auto in_words = [&name](Error error) {
    if (!name.empty()) error.add_context(fmt::format("Could not open '{}'", name));
    return std::unexpected(std::move(error));
  };
  bool writeback = request.cache.writeback;
  if (const base::OptionValue* value = request.options.find("cache.writeback")) {
    const bool* given = std::get_if<bool>(value);
    const std::string* text = std::get_if<std::string>(value);
    writeback = given != nullptr ? *given : text == nullptr || *text != "off";
  }
  Result<Node*> node = co_await open_node(*state_, node_request(request));
  if (!node) co_return in_words(std::move(node).error());
  auto backend = make_backend(*this, **node, needed, shared);
  if (!backend) {
    Error error = std::move(backend).error();
    if (auto closed = co_await close_if_unused(*state_, **node); !closed) {
      state_->environment.log.warning(closed.error().message());
    }
    co_return in_words(std::move(error));
  }
  (*backend)->set_write_cache(writeback);
  co_return std::move(*backend);
}

io::Task<Result<std::unique_ptr<Backend>>> Graph::attach(Node& node, Permissions needed,
                                                         Permissions shared) {
  auto change = co_await state_->changes.lock();
  co_return make_backend(*this, node, needed, shared);
}

// ---- Drain

io::Task<void> Graph::drained_begin(Node& node) {
  std::vector<std::shared_ptr<InFlight>> users = users_above(node);
  for (const auto& user : users) user->stop();
  {
    std::lock_guard guard(state_->structure);
    state_->drained.push_back({&node, users});
  }
  for (const auto& user : users) co_await user->empty();
}

void Graph::drained_end(Node& node) {
  std::vector<std::shared_ptr<InFlight>> users;
  {
    std::lock_guard guard(state_->structure);
    auto found = std::ranges::find(state_->drained, &node, &State::Drained::node);
    PLATTER_ASSERT(found != state_->drained.end());
    users = std::move(found->users);
    state_->drained.erase(found);
  }
  for (const auto& user : users) user->start();
}

// ---- Changes

static bool reaches(const Node& from, const Node* target) {
  if (&from == target) return true;
  return std::ranges::any_of(
      from.children(), [target](const auto& child) { return reaches(child->node(), target); });
}

io::Task<Result<void>> Graph::replace_child(Child& child, Node& replacement) {
  auto change = co_await state_->changes.lock();
  if (child.parent() != nullptr && reaches(replacement, child.parent())) {
    co_return fail(EINVAL, fmt::format("Making '{}' a {} child of '{}' would create a cycle",
                                       replacement.name(), child.name(), child.parent()->name()));
  }
  Node& old = child.node();
  unlink_edge(child);
  link_edge(child, replacement);
  Result<void> allowed = refresh_permissions({&old, &replacement});
  if (!allowed) {
    unlink_edge(child);
    link_edge(child, old);
    co_return std::move(allowed);
  }
  co_return co_await close_if_unused(*state_, old);
}

io::Task<Result<void>> close_if_unused(Graph::State& graph, Node& node) {
  Node::State& s = node.state();
  if (s.kept || !s.parents.empty()) co_return Result<void>();
  Result<void> result;
  if (s.driver != nullptr) result = co_await s.driver->close();
  s.backing = s.primary = nullptr;
  while (!s.children.empty()) {
    std::unique_ptr<Child> edge = std::move(s.children.back());
    s.children.pop_back();
    Node& below = edge->node();
    detach_edge(*edge);
    Result<void> closed = co_await close_if_unused(graph, below);
    if (result && !closed) result = std::move(closed);
  }
  std::unique_ptr<Node> gone;
  {
    std::lock_guard guard(graph.structure);
    auto found = std::ranges::find(graph.nodes, &node, &std::unique_ptr<Node>::get);
    PLATTER_ASSERT(found != graph.nodes.end());
    gone = std::move(*found);
    graph.nodes.erase(found);
  }
  co_return std::move(result);
}

}  // namespace platter::block
