#include "block/backend.h"

#include <algorithm>
#include <optional>

#include "base/math.h"
#include "base/probe.h"
#include "base/try.h"
#include "block/accounting.h"
#include "block/backend_state.h"
#include "block/graph_state.h"
#include "block/unflushed.h"
#include "io/request_times.h"

namespace platter::block {

namespace {

// One request's passage: counted in flight from enter() on, and in the accounts when it ends. Lives
// in the request's frame.
class Request {
 public:
  Request(Backend::State& state, Operation operation, uint64_t offset, uint64_t bytes)
      : state_(state), operation_(operation), offset_(offset), bytes_(bytes) {}

  bool try_enter() {
    if (!state_.in_flight->try_enter(ticket_)) return false;
    // Memory is about as far away as the clock: they are asked at the same time.
    state_.node().driver().prefetch(offset_);
    io::Reactor* reactor = io::Reactor::current();
    start_ = reactor != nullptr ? reactor->recent() : io::Nanoseconds(0);
    PLATTER_PROBE(backend_request_begin, this, static_cast<int>(operation_), offset_, bytes_);
    return true;
  }
  io::Task<void> enter_late() {
    const io::Nanoseconds begun = now();
    do co_await state_.in_flight->wait_entry();
    while (!try_enter());
    if (io::RequestTimes* times = co_await io::request_times()) times->waiting += now() - begun;
  }
  template <typename T>
  void end(const Result<T>& result) {
    PLATTER_PROBE(backend_request_end, this, static_cast<int>(operation_),
                  result ? 0 : result.error().code());
    BackendCounters::Counts& counts =
        state_.counters[ticket_.slot].of[static_cast<unsigned>(operation_)];
    if (result) {
      const io::Nanoseconds ended = now();
      const auto taken = static_cast<uint64_t>((ended - start_).count());
      state_.counters[ticket_.slot].last_ended_ns.store(static_cast<uint64_t>(ended.count()),
                                                        std::memory_order_relaxed);
      BackendCounters::add(counts.operations, 1);
      BackendCounters::add(counts.bytes, bytes_);
      BackendCounters::add(counts.time_ns, taken);
      if (const auto& latencies = state_.node().state().latencies) [[unlikely]]
        count_latency(*latencies, taken);
    } else {
      BackendCounters::add(counts.failed, 1);
    }
    state_.in_flight->leave(ticket_);
  }

 private:
  static io::Nanoseconds now() {
    io::Reactor* reactor = io::Reactor::current();
    return reactor != nullptr ? reactor->now() : io::Nanoseconds(0);
  }
  void count_latency(LatencyHistograms& latencies, uint64_t nanoseconds) const {
    // By the operation: discards are not measured.
    constexpr std::optional<LatencyKind> kKinds[kOperations] = {
        LatencyKind::kRead, LatencyKind::kWrite, LatencyKind::kWrite,
        std::nullopt,       LatencyKind::kFlush, LatencyKind::kZoneAppend};
    const auto kind = kKinds[static_cast<unsigned>(operation_)];
    if (!kind) return;
    const auto& histogram = latencies.of[static_cast<unsigned>(*kind)];
    if (histogram != nullptr) histogram->add(ticket_.slot, nanoseconds);
  }
  Backend::State& state_;
  Operation operation_;
  uint64_t offset_;
  uint64_t bytes_;
  InFlight::Ticket ticket_;
  io::Nanoseconds start_{};
};

Result<void> outside() { return fail(EIO, "A request reaches past the end of the image"); }

Result<void> check_write(const Backend::State& s, uint64_t offset, uint64_t length,
                         WriteFlags flags) {
  const Permissions held = s.edge.needed();
  const bool allowed = held.has(Permission::kWrite) || (flags.has(WriteFlag::kWriteUnchanged) &&
                                                        held.has(Permission::kWriteUnchanged));
  if (!allowed) return fail(EPERM, "Block node is read-only");
  // Only who writes an image into a file may make it grow by writing; a guest's disk has an end.
  const bool grows = held.has(Permission::kResize) && s.node().limits().extends_on_write &&
                     s.node().type().kind == DriverKind::kProtocol;
  if (!grows && !base::range_within(offset, length, s.node().size())) return outside();
  return {};
}

WriteFlags with_durability(const Backend::State& s, WriteFlags flags) {
  if (!s.write_cache.load(std::memory_order_relaxed)) flags |= WriteFlag::kFua;
  return flags;
}

}  // namespace

// Read mostly: the line is written only by the first write after a flush.
void note_written(Node& node) {
  std::atomic<bool>& unflushed = node.state().unflushed;
  if (!unflushed.load(std::memory_order_seq_cst)) unflushed.store(true, std::memory_order_seq_cst);
}

Backend::Backend(std::unique_ptr<State> state) : state_(std::move(state)) {}
Backend::~Backend() { PLATTER_ASSERT(state_ == nullptr || state_->closed); }

Node& Backend::node() const { return state_->node(); }
uint64_t Backend::size() const { return state_->node().size(); }
const Limits& Backend::limits() const { return state_->node().limits(); }

io::Task<Result<void>> Backend::read(uint64_t offset, io::BufferList buffers) {
  State& s = *state_;
  Request request(s, Operation::kRead, offset, buffers.size());
  if (!request.try_enter()) co_await request.enter_late();
  Node& node = s.node();
  Result<void> result = base::range_within(offset, buffers.size(), node.size())
                            ? co_await node.read(offset, buffers)
                            : outside();
  request.end(result);
  co_return std::move(result);
}

io::Task<Result<void>> Backend::write(uint64_t offset, io::BufferList buffers, WriteFlags flags) {
  State& s = *state_;
  Request request(s, Operation::kWrite, offset, buffers.size());
  if (!request.try_enter()) co_await request.enter_late();
  Result<void> result = check_write(s, offset, buffers.size(), flags);
  if (result) {
    result = co_await s.node().write(offset, buffers, with_durability(s, flags));
    note_written(s.node());
  }
  request.end(result);
  co_return std::move(result);
}

io::Task<Result<void>> Backend::zero(uint64_t offset, uint64_t length, WriteFlags flags) {
  State& s = *state_;
  Request request(s, Operation::kZero, offset, length);
  if (!request.try_enter()) co_await request.enter_late();
  Result<void> result = check_write(s, offset, length, flags);
  if (result) {
    result = co_await s.node().zero(offset, length, with_durability(s, flags));
    note_written(s.node());
  }
  request.end(result);
  co_return std::move(result);
}

io::Task<Result<void>> Backend::discard(uint64_t offset, uint64_t length) {
  State& s = *state_;
  Request request(s, Operation::kDiscard, offset, length);
  if (!request.try_enter()) co_await request.enter_late();
  Result<void> result = check_write(s, offset, length, {});
  if (result) {
    result = co_await s.node().discard(offset, length);
    note_written(s.node());
  }
  request.end(result);
  co_return std::move(result);
}

// Skips a flush when nothing was written since the last one and none is under way. Two that run
// together both reach the driver: the second must not report what the first has not finished.
static io::Task<Result<void>> flush_written(Node& node) {
  Node::State& s = node.state();
  const bool alone = s.flushes.fetch_add(1, std::memory_order_seq_cst) == 0;
  const bool written = s.unflushed.exchange(false, std::memory_order_seq_cst);
  Result<void> result;
  if (written || !alone) {
    result = co_await node.flush();
    if (!result) s.unflushed.store(true, std::memory_order_seq_cst);
  }
  s.flushes.fetch_sub(1, std::memory_order_seq_cst);
  co_return std::move(result);
}

io::Task<Result<void>> Backend::flush() {
  State& s = *state_;
  Request request(s, Operation::kFlush, 0, 0);
  if (!request.try_enter()) co_await request.enter_late();
  Result<void> result = co_await flush_written(s.node());
  request.end(result);
  co_return std::move(result);
}

io::Task<Result<BlockStatus>> Backend::status_above(Node* base, uint64_t offset, uint64_t length,
                                                    StatusDetail detail, unsigned* depth) {
  State& s = *state_;
  InFlight::Ticket ticket;
  while (!s.in_flight->try_enter(ticket)) co_await s.in_flight->wait_entry();
  Result<BlockStatus> result = co_await s.node().status_above(base, offset, length, detail, depth);
  s.in_flight->leave(ticket);
  co_return std::move(result);
}

io::Task<Result<void>> Backend::resize(uint64_t size, Preallocation preallocation, bool exact) {
  State& s = *state_;
  if (!s.edge.needed().has(Permission::kResize)) {
    co_return fail(EPERM, "The user of this image has no permission to resize it");
  }
  Node& node = s.node();
  auto change = co_await s.graph->state().changes.lock();
  co_await s.graph->drained_begin(node);
  Result<void> result = co_await node.resize(size, preallocation, exact);
  note_written(node);
  s.graph->drained_end(node);
  co_return std::move(result);
}

// ---- Zoned disks

std::optional<ZonedCharacteristics> Backend::zoned_characteristics() const {
  return state_->node().zoned_characteristics();
}

io::Task<Result<size_t>> Backend::zone_report(uint64_t offset, std::span<Zone> zones) {
  State& s = *state_;
  InFlight::Ticket ticket;
  while (!s.in_flight->try_enter(ticket)) co_await s.in_flight->wait_entry();
  Result<size_t> result = co_await s.node().zone_report(offset, zones);
  s.in_flight->leave(ticket);
  co_return std::move(result);
}

io::Task<Result<void>> Backend::zone_manage(ZoneAction action, uint64_t offset, uint64_t length) {
  State& s = *state_;
  InFlight::Ticket ticket;
  while (!s.in_flight->try_enter(ticket)) co_await s.in_flight->wait_entry();
  Result<void> result = check_write(s, offset, length, {});
  if (result) {
    result = co_await s.node().zone_manage(action, offset, length);
    note_written(s.node());
    if (result && !s.write_cache.load(std::memory_order_relaxed))
      result = co_await flush_written(s.node());
  }
  s.in_flight->leave(ticket);
  co_return std::move(result);
}

io::Task<Result<uint64_t>> Backend::zone_append(uint64_t offset, io::BufferList buffers,
                                                WriteFlags flags) {
  State& s = *state_;
  Request request(s, Operation::kZoneAppend, offset, buffers.size());
  if (!request.try_enter()) co_await request.enter_late();
  Result<uint64_t> result(0);
  if (auto allowed = check_write(s, offset, buffers.size(), {}); !allowed) {
    result = std::unexpected(std::move(allowed).error());
  } else {
    result = co_await s.node().zone_append(offset, buffers, with_durability(s, flags));
    note_written(s.node());
  }
  request.end(result);
  co_return std::move(result);
}

void Backend::set_write_cache(bool on) { state_->write_cache.store(on, std::memory_order_relaxed); }

static void add_up(const Backend::State& s, BackendStatistics& total) {
  Accounting* accounts[kOperations] = {&total.read,    &total.write, &total.zero,
                                       &total.discard, &total.flush, &total.zone_append};
  for (const BackendCounters& counters : s.counters) {
    const io::Nanoseconds ended(counters.last_ended_ns.load(std::memory_order_relaxed));
    total.last_ended = std::max(total.last_ended, ended);
    for (size_t i = 0; i < kOperations; ++i) {
      const BackendCounters::Counts& counts = counters.of[i];
      accounts[i]->operations += counts.operations.load(std::memory_order_relaxed);
      accounts[i]->bytes += counts.bytes.load(std::memory_order_relaxed);
      accounts[i]->failed += counts.failed.load(std::memory_order_relaxed);
      accounts[i]->total_time_ns += counts.time_ns.load(std::memory_order_relaxed);
    }
  }
}

BackendStatistics Backend::statistics() const {
  BackendStatistics total;
  add_up(*state_, total);
  return total;
}

BackendStatistics statistics(const Node& node) {
  BackendStatistics total;
  Graph::State& graph = node.graph().state();
  std::lock_guard guard(graph.structure);
  for (const Backend::State* backend : graph.backends) {
    if (&backend->node() == &node) add_up(*backend, total);
  }
  return total;
}

uint64_t highest_written(const Node& node) {
  return node.state().highest_written.load(std::memory_order_relaxed);
}

io::Task<Result<void>> Backend::close() {
  State& s = *state_;
  PLATTER_ASSERT(!s.closed);
  auto change = co_await s.graph->state().changes.lock();
  s.in_flight->stop();
  co_await s.in_flight->empty();
  Node& node = s.node();
  Result<void> flushed;
  if (s.edge.needed().has(Permission::kWrite)) flushed = co_await flush_written(node);
  {
    std::lock_guard guard(s.graph->state().structure);
    std::erase(s.graph->state().backends, &s);
  }
  detach_edge(s.edge);
  s.closed = true;
  Result<void> closed = co_await close_if_unused(s.graph->state(), node);
  if (!flushed) co_return std::move(flushed);
  co_return std::move(closed);
}

}  // namespace platter::block
