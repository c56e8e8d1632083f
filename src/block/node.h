// Node: one driver instance in the graph, and the request path in front of it.
//
// The request path checks ranges, pads unaligned requests (read-modify-write), keeps overlapping
// serialising requests apart, turns zero buffers into zero writes where asked, splits what is
// larger than the driver's limits and falls back where a driver lacks an operation. An aligned
// request within the limits goes to the driver without a coroutine of its own.
//
// The graph (children, parents, options) changes only while no request is in flight below the
// backends that reach it (a drained section); requests may run on any reactor at the same time.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/options.h"
#include "block/driver.h"
#include "block/types.h"
#include "block/zoned.h"

namespace platter::block {

class Backend;
class DirtyBitmap;
class Graph;
class Node;

// An edge: `parent` uses `node` under `name`, with permissions. The request calls forward to the
// node and assert that the permission for them is held.
class Child {
 public:
  const std::string& name() const { return name_; }
  ChildRoles roles() const { return roles_; }
  Node* parent() const { return parent_; }
  Node& node() const { return *node_; }
  Permissions needed() const { return load(needed_); }
  Permissions shared() const { return load(shared_); }

  uint64_t size() const;
  io::Task<Result<void>> read(uint64_t offset, io::BufferList buffers);
  io::Task<Result<void>> write(uint64_t offset, io::BufferList buffers, WriteFlags flags = {});
  io::Task<Result<void>> zero(uint64_t offset, uint64_t length, WriteFlags flags = {});
  io::Task<Result<void>> discard(uint64_t offset, uint64_t length);
  io::Task<Result<void>> flush();
  io::Task<Result<BlockStatus>> status(uint64_t offset, uint64_t length, StatusDetail detail);
  io::Task<Result<void>> resize(uint64_t size, Preallocation preallocation, bool exact);
  io::Task<Result<size_t>> zone_report(uint64_t offset, std::span<Zone> zones);
  io::Task<Result<void>> zone_manage(ZoneAction action, uint64_t offset, uint64_t length);
  io::Task<Result<uint64_t>> zone_append(uint64_t offset, io::BufferList buffers, WriteFlags flags);

  // Whether pass() does anything; the node below then is a filter for debugging (block/debug.h).
  bool has_debug_points() const { return debug_points_ != nullptr; }
  io::Task<void> pass(DebugEvent event) const;

 private:
  friend struct ChildAccess;  // block/node_state.h
  std::string name_;
  ChildRoles roles_;
  Node* parent_ = nullptr;  // null: a backend's edge
  Node* node_ = nullptr;
  DebugPoints* debug_points_ = nullptr;        // of the node
  std::shared_ptr<class InFlight> in_flight_;  // of the backend whose edge this is
  // Requests look at them while another user comes or goes.
  std::atomic<uint32_t> needed_{0};
  std::atomic<uint32_t> shared_{0};
  static Permissions load(const std::atomic<uint32_t>& bits) {
    return Permissions::from_bits(bits.load(std::memory_order_relaxed));
  }
};

class Node {
 public:
  ~Node();

  const std::string& name() const;  // node-name
  const DriverType& type() const;
  Driver& driver() const;
  Graph& graph() const;
  // As a person would name it: a path, or "json:{...}" where no path says it all.
  const std::string& filename() const;
  // The absolute directory that relative names in this image start from; empty: none.
  const std::string& directory() const;
  bool read_only() const;
  bool probed() const;                   // its format was guessed, not given
  const base::Options& options() const;  // explicit ones, flat
  const Limits& limits() const;
  uint64_t size() const;

  Child* child(std::string_view name) const;  // or null
  const std::vector<std::unique_ptr<Child>>& children() const;
  Child* backing() const;  // the COW child, or null
  Child* primary() const;  // whose file name stands for this node, or null
  // The node below filters: itself if it is none.
  Node& skip_filters();

  // ---- Requests. Byte-granular.
  io::Task<Result<void>> read(uint64_t offset, io::BufferList buffers);
  io::Task<Result<void>> write(uint64_t offset, io::BufferList buffers, WriteFlags flags = {});
  io::Task<Result<void>> zero(uint64_t offset, uint64_t length, WriteFlags flags = {});
  io::Task<Result<void>> discard(uint64_t offset, uint64_t length);
  io::Task<Result<void>> flush();
  // Of this layer alone.
  io::Task<Result<BlockStatus>> status(uint64_t offset, uint64_t length, StatusDetail detail);
  // Through the chain down to, not including, `base` (null: to its end). `depth`, if not null, gets
  // how many layers down the answer was found. Past the end of a shorter layer the one above it
  // answers: zero, not allocated.
  io::Task<Result<BlockStatus>> status_above(Node* base, uint64_t offset, uint64_t length,
                                             StatusDetail detail, unsigned* depth);
  io::Task<Result<void>> resize(uint64_t size, Preallocation preallocation, bool exact);

  // ---- Zoned disks (block/zoned.h). Nothing, or ENOTSUP: it is none.
  std::optional<ZonedCharacteristics> zoned_characteristics() const;
  // ENOTSUP: it is host-managed, and so nothing for `user` ("block format 'qcow2'"), who does not
  // look where its write pointers are.
  Result<void> check_written_anywhere(std::string_view user) const;
  io::Task<Result<size_t>> zone_report(uint64_t offset, std::span<Zone> zones);
  io::Task<Result<void>> zone_manage(ZoneAction action, uint64_t offset, uint64_t length);
  // Never split. kZoneInvalid: larger than max_append, or nothing.
  io::Task<Result<uint64_t>> zone_append(uint64_t offset, io::BufferList buffers,
                                         WriteFlags flags = {});

  // Resumes when every request that was in flight at some backend above this node when it was
  // called has ended. Not to be awaited from inside a request. What a driver waits for before it
  // reuses space that an earlier reader or writer may still be using.
  io::Task<void> requests_in_flight_end();

  // From now on overlapping writes with WriteFlag::kSerialising are kept apart here (always so
  // where requests are padded). Called with no request in flight.
  void track_writes();

  // ---- Dirty bitmaps. Called with no request in flight.
  // From now on what passes here is marked in `bitmap`, which grows and shrinks with the node (by
  // resize(): a node that grows by being written to cannot be recorded).
  void record_in(std::shared_ptr<DirtyBitmap> bitmap);
  void stop_recording_in(const DirtyBitmap& bitmap);

  // For this room alone (block/node_state.h).
  struct State;
  explicit Node(std::unique_ptr<State> state);
  State& state() const { return *state_; }

 private:
  io::Task<Result<void>> read_slow(uint64_t offset, io::BufferList buffers);
  io::Task<Result<void>> write_slow(uint64_t offset, io::BufferList buffers, WriteFlags flags);
  io::Task<Result<void>> zero_slow(uint64_t offset, uint64_t length, WriteFlags flags);
  io::Task<Result<void>> discard_slow(uint64_t offset, uint64_t length);
  std::unique_ptr<State> state_;
};

}  // namespace platter::block
