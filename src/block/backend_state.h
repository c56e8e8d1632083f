// What a backend holds. For this room alone.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <string>

#include "block/backend.h"
#include "block/in_flight.h"
#include "block/node_state.h"
#include "io/reactor.h"

namespace platter::block {

enum class Operation : unsigned { kRead, kWrite, kZero, kDiscard, kFlush, kZoneAppend };
inline constexpr size_t kOperations = 6;

// Counters of one reactor. Only its thread writes them, so a plain load and store each is enough.
struct alignas(128) BackendCounters {
  struct Counts {
    std::atomic<uint64_t> operations{0}, bytes{0}, failed{0}, time_ns{0};
  };
  std::array<Counts, kOperations> of;
  std::atomic<uint64_t> last_ended_ns{0};

  static void add(std::atomic<uint64_t>& counter, uint64_t value) {
    counter.store(counter.load(std::memory_order_relaxed) + value, std::memory_order_relaxed);
  }
};

struct Backend::State {
  Graph* graph = nullptr;
  Child edge;
  std::shared_ptr<InFlight> in_flight = std::make_shared<InFlight>();
  std::atomic<bool> write_cache{true};
  bool closed = false;
  std::array<BackendCounters, io::kMaxReactors> counters;

  Node& node() const { return edge.node(); }
};

}  // namespace platter::block
