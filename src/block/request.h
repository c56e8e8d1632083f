// Pieces of the request path that its files share. For this room alone.
#pragma once

#include "block/node_state.h"

namespace platter::block {

// What a probe calls an operation (docs/probes.md): as the backend's Operation.
enum ProbedOperation : int {
  kProbedRead,
  kProbedWrite,
  kProbedZero,
  kProbedDiscard,
  kProbedFlush,
  kProbedZoneAppend,
};

// A write's place among the node's tracked writes. Lives in the request's frame; leave() after
// enter().
class TrackedRange {
 public:
  TrackedRange(Node::State& s, uint64_t offset, uint64_t length, WriteFlags flags);
  io::Task<void> enter();
  void leave();

 private:
  WriteTracker* tracker_;
  WriteTracker::Write write_{};
  unsigned slot_ = 0;
  bool ordinary_ = false;
};

// Padding, bounce buffers and splitting as the driver's limits ask; no tracking, no flag handling.
io::Task<Result<void>> write_as_data(Node::State& s, uint64_t offset, io::BufferList buffers,
                                     WriteFlags flags);
io::Task<Result<void>> flush_if(Node::State& s, bool wanted);
// The largest read or write that the driver takes at once.
uint64_t transfer_limit(const Limits& limits);
// Whether the driver takes this memory as it is.
bool memory_fits(const Limits& limits, const io::BufferList& buffers);

}  // namespace platter::block
