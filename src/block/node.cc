#include "block/node.h"

#include <algorithm>

#include "block/graph.h"
#include "block/graph_state.h"
#include "block/node_state.h"

namespace platter::block {

Node::Node(std::unique_ptr<State> state) : state_(std::move(state)) {}
Node::~Node() = default;

const std::string& Node::name() const { return state_->name; }
const DriverType& Node::type() const { return *state_->type; }
Driver& Node::driver() const { return *state_->driver; }
Graph& Node::graph() const { return state_->graph; }
const std::string& Node::filename() const { return state_->filename; }
const std::string& Node::directory() const { return state_->directory; }
bool Node::read_only() const { return state_->flags.read_only; }
bool Node::probed() const { return state_->probed; }
const base::Options& Node::options() const { return state_->options; }
const Limits& Node::limits() const { return state_->limits; }
uint64_t Node::size() const { return state_->driver->size(); }
const std::vector<std::unique_ptr<Child>>& Node::children() const { return state_->children; }
Child* Node::backing() const { return state_->backing; }
Child* Node::primary() const { return state_->primary; }

Child* Node::child(std::string_view name) const {
  for (const auto& child : state_->children) {
    if (child->name() == name) return child.get();
  }
  return nullptr;
}

Node& Node::skip_filters() {
  Node* node = this;
  while (node->primary() != nullptr && node->type().kind == DriverKind::kFilter) {
    node = &node->primary()->node();
  }
  return *node;
}

void Node::track_writes() {
  State& s = *state_;
  if (s.tracker != nullptr) return;
  s.tracker = std::make_unique<WriteTracker>();
  s.choose_write_path();
}

void Node::record_in(std::shared_ptr<DirtyBitmap> bitmap) {
  State& s = *state_;
  PLATTER_ASSERT(std::ranges::find(s.recorded_in, bitmap) == s.recorded_in.end());
  s.recorded_in.push_back(std::move(bitmap));
  s.choose_write_path();
}

void Node::stop_recording_in(const DirtyBitmap& bitmap) {
  State& s = *state_;
  std::erase_if(s.recorded_in, [&](const auto& held) { return held.get() == &bitmap; });
  s.choose_write_path();
}

void Node::State::prepare_requests() {
  limits = driver->limits();
  PLATTER_ASSERT(limits.request_alignment != 0 && limits.memory_alignment != 0);
  if (no_flush) limits.supports_fua = false;
  fua = limits.supports_fua;
  slow_flags = {};
  if (!fua) slow_flags |= WriteFlag::kFua;
  if (limits.compressed_alignment == 0) slow_flags |= WriteFlag::kCompressed;
  plain_read = limits.request_alignment == 1;
  if (limits.request_alignment > 1 && tracker == nullptr)
    tracker = std::make_unique<WriteTracker>();
  debug_points = driver->debug_points();
  choose_write_path();
}

void Node::State::choose_write_path() {
  plain_write = plain_read && tracker == nullptr && detect_zeroes == DetectZeroes::kOff &&
                debug_points == nullptr && recorded_in.empty() &&
                write_threshold.load(std::memory_order_relaxed) == 0;
}

// ---- Child: the requests, with the permission for them asserted. A driver that asks for more than
// it said it needs is our own mistake.

static bool may_write(Permissions held, WriteFlags flags) {
  return held.has(Permission::kWrite) ||
         (flags.has(WriteFlag::kWriteUnchanged) && held.has(Permission::kWriteUnchanged));
}

uint64_t Child::size() const { return node_->size(); }

io::Task<Result<void>> Child::read(uint64_t offset, io::BufferList buffers) {
  return node_->read(offset, buffers);
}
io::Task<Result<void>> Child::write(uint64_t offset, io::BufferList buffers, WriteFlags flags) {
  PLATTER_ASSERT(may_write(needed(), flags));
  return node_->write(offset, buffers, flags);
}
io::Task<Result<void>> Child::zero(uint64_t offset, uint64_t length, WriteFlags flags) {
  PLATTER_ASSERT(may_write(needed(), flags));
  return node_->zero(offset, length, flags);
}
io::Task<Result<void>> Child::discard(uint64_t offset, uint64_t length) {
  PLATTER_ASSERT(needed().has(Permission::kWrite));
  return node_->discard(offset, length);
}
io::Task<Result<void>> Child::flush() { return node_->flush(); }
io::Task<Result<BlockStatus>> Child::status(uint64_t offset, uint64_t length, StatusDetail detail) {
  return node_->status(offset, length, detail);
}
io::Task<Result<void>> Child::resize(uint64_t size, Preallocation preallocation, bool exact) {
  PLATTER_ASSERT(needed().has(Permission::kResize));
  return node_->resize(size, preallocation, exact);
}

io::Task<Result<size_t>> Child::zone_report(uint64_t offset, std::span<Zone> zones) {
  return node_->zone_report(offset, zones);
}
io::Task<Result<void>> Child::zone_manage(ZoneAction action, uint64_t offset, uint64_t length) {
  PLATTER_ASSERT(needed().has(Permission::kWrite));
  return node_->zone_manage(action, offset, length);
}
io::Task<Result<uint64_t>> Child::zone_append(uint64_t offset, io::BufferList buffers,
                                              WriteFlags flags) {
  PLATTER_ASSERT(needed().has(Permission::kWrite));
  return node_->zone_append(offset, buffers, flags);
}

io::Task<void> Child::pass(DebugEvent event) const {
  if (debug_points_ == nullptr) return io::Task<void>::ready();
  return debug_points_->pass(event);
}

// ---- Grace

static void collect_users(const Node& node, std::vector<std::shared_ptr<InFlight>>& users) {
  for (Child* edge : node.state().parents) {
    if (edge->parent() != nullptr) {
      collect_users(*edge->parent(), users);
    } else {
      users.push_back(ChildAccess::in_flight(*edge));
    }
  }
}

std::vector<std::shared_ptr<InFlight>> users_above(const Node& node) {
  std::vector<std::shared_ptr<InFlight>> users;
  std::lock_guard guard(node.graph().state().structure);
  collect_users(node, users);
  return users;
}

io::Task<void> Node::requests_in_flight_end() {
  std::vector<std::shared_ptr<InFlight>> users = users_above(*this);
  for (const auto& user : users) co_await user->grace();
}

}  // namespace platter::block
