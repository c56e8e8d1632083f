// An allocating write, between its decision and its link.
#pragma once

#include "format/qcow2/driver.h"

namespace platter::format::qcow2 {

struct Qcow2::Plan {
  // What others keep away from: whole clusters where host clusters are allocated, else the
  // subclusters that are filled.
  InFlightAllocations::Allocation allocation;
  uint64_t start = 0;   // guest offset of the first cluster
  HostRun run;          // where it and those behind it are, or will be
  bool reuse = false;   // host clusters that the mapping has kept
  uint64_t offset = 0;  // guest bytes written
  uint64_t length = 0;
  // Those and what is copied around them: whole subclusters, which the mapping shows in the run
  // from then on. What else the clusters have stays what it is.
  uint64_t begin = 0;
  uint64_t end = 0;
  bool head_zero = false;     // [begin, offset) reads zero
  bool tail_zero = false;     // and so does what is behind the written bytes
  bool over_backing = false;  // where not, it is what the backing file has there
  uint64_t linked = 0;        // clusters

  uint64_t host_of(uint64_t guest_offset) const { return run.offset + (guest_offset - start); }
};

}  // namespace platter::format::qcow2
