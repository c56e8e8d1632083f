// Backend: a user of a node (a tool, a device, an export, a job). It holds the permissions its user
// needs, counts what is in flight, keeps accounts, and is where a drained section stops new
// requests.
//
// Counters are per reactor, cache lines apart: a request on one reactor writes to no line that
// another one reads, unless a drain is going on.
#pragma once

#include <memory>
#include <string>

#include "block/node.h"

namespace platter::block {

struct Accounting {
  uint64_t operations = 0, bytes = 0, failed = 0, total_time_ns = 0;
};
struct BackendStatistics {
  Accounting read, write, zero, discard, flush, zone_append;
  // When the last one ended that did not fail, by the reactors' clock; 0: none has.
  io::Nanoseconds last_ended{};
};

class Backend {
 public:
  ~Backend();  // closed before (asserted)

  Node& node() const;
  uint64_t size() const;
  const Limits& limits() const;

  // A range that leaves the node is EIO, a write without the permission EPERM. With the write cache
  // off (set_write_cache), every write is durable when it completes.
  io::Task<Result<void>> read(uint64_t offset, io::BufferList buffers);
  io::Task<Result<void>> write(uint64_t offset, io::BufferList buffers, WriteFlags flags = {});
  io::Task<Result<void>> zero(uint64_t offset, uint64_t length, WriteFlags flags = {});
  io::Task<Result<void>> discard(uint64_t offset, uint64_t length);
  io::Task<Result<void>> flush();
  io::Task<Result<BlockStatus>> status_above(Node* base, uint64_t offset, uint64_t length,
                                             StatusDetail detail, unsigned* depth = nullptr);
  io::Task<Result<void>> resize(uint64_t size, Preallocation preallocation, bool exact);

  // ---- Zoned disks (block/zoned.h). Nothing, or ENOTSUP: it is none.
  std::optional<ZonedCharacteristics> zoned_characteristics() const;
  io::Task<Result<size_t>> zone_report(uint64_t offset, std::span<Zone> zones);
  io::Task<Result<void>> zone_manage(ZoneAction action, uint64_t offset, uint64_t length);
  // Where the data is now.
  io::Task<Result<uint64_t>> zone_append(uint64_t offset, io::BufferList buffers,
                                         WriteFlags flags = {});

  void set_write_cache(bool on);
  BackendStatistics statistics() const;

  // Drains, flushes if it may write, and lets go of the node (which closes if this was its last
  // user).
  io::Task<Result<void>> close();

  // For this room alone (block/backend_state.h).
  struct State;
  explicit Backend(std::unique_ptr<State> state);
  State& state() const { return *state_; }

 private:
  std::unique_ptr<State> state_;
};

}  // namespace platter::block
