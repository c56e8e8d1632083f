// What a node holds. For this room alone.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "block/dirty_bitmap.h"
#include "block/driver.h"
#include "block/in_flight.h"
#include "block/latency_histogram.h"
#include "block/node.h"
#include "block/write_threshold.h"
#include "block/write_tracker.h"

namespace platter::block {

// Edges are made and moved by the graph.
struct ChildAccess {
  static std::string& name(Child& child) { return child.name_; }
  static ChildRoles& roles(Child& child) { return child.roles_; }
  static Node*& parent(Child& child) { return child.parent_; }
  static Node*& node(Child& child) { return child.node_; }
  static DebugPoints*& debug_points(Child& child) { return child.debug_points_; }
  static void set_permissions(Child& child, Permissions needed, Permissions shared) {
    child.needed_.store(needed.bits(), std::memory_order_relaxed);
    child.shared_.store(shared.bits(), std::memory_order_relaxed);
  }
  static std::shared_ptr<InFlight>& in_flight(Child& child) { return child.in_flight_; }
};

struct Node::State {
  explicit State(Graph& the_graph) : graph(the_graph) {}

  Graph& graph;
  std::string name;
  const DriverType* type = nullptr;
  std::unique_ptr<Driver> driver;
  std::string filename;
  std::string directory;
  base::Options options;
  OpenFlags flags;
  bool probed = false;
  bool force_share = false;
  bool no_flush = false;  // cache.no-flush
  bool backing_overridden = false;
  bool kept = false;  // open by its name, used or not (block/named_nodes.h)
  DetectZeroes detect_zeroes = DetectZeroes::kOff;

  std::vector<std::unique_ptr<Child>> children;
  std::vector<Child*> parents;  // guarded by the graph's structure mutex
  Child* backing = nullptr;
  Child* primary = nullptr;

  // What the parents need and share, taken together.
  Permissions needed;
  Permissions shared = kAllPermissions;

  // Facts for the request path, settled by prepare_requests() after the driver is open.
  Limits limits;
  bool plain_read = false;                // no request needs padding or a bounce buffer
  bool plain_write = false;               // nor tracking, nor a look at its content
  bool fua = false;                       // the driver makes a write durable by itself
  DebugPoints* debug_points = nullptr;    // the driver's own, if it has any
  WriteFlags slow_flags;                  // those that a plain write must not have
  std::unique_ptr<WriteTracker> tracker;  // null: writes are not tracked
  std::vector<std::shared_ptr<DirtyBitmap>> recorded_in;
  std::unique_ptr<LatencyHistograms> latencies;  // null: not asked for
  // The write that passes it takes it away, and calls the observer.
  std::atomic<uint64_t> write_threshold{0};  // 0: none
  ThresholdObserver threshold_observer;

  // Whether something was written since the last flush (set when a write ends; read mostly).
  std::atomic<bool> unflushed{true};
  std::atomic<uint32_t> flushes{0};  // in flight

  // The end of the write that reached farthest. While an image grows every write changes it: it
  // takes no other line along.
  alignas(128) std::atomic<uint64_t> highest_written{0};

  void prepare_requests();
  void choose_write_path();
  // A request that may have changed this range has ended.
  void mark_dirty(uint64_t offset, uint64_t length) const {
    for (const auto& bitmap : recorded_in) bitmap->mark(offset, length);
  }
  // A write up to `end` is to follow.
  void reach(uint64_t end) {
    if (end > highest_written.load(std::memory_order_relaxed)) [[unlikely]]
      raise_highest(end);
  }
  void raise_highest(uint64_t end);
  void check_threshold(uint64_t end) {
    reach(end);
    if (write_threshold.load(std::memory_order_relaxed) != 0) [[unlikely]]
      pass_threshold(end);
  }
  void pass_threshold(uint64_t end);
};

// The permissions that a child needs by its role alone (driver.cc).
Driver::ChildPermissions permissions_by_role(const Child& child, Permissions needed,
                                             Permissions shared);

}  // namespace platter::block
