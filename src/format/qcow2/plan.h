// An allocating write, between its decision and its link.
#pragma once

#include "format/qcow2/driver.h"

namespace platter::format::qcow2 {

struct Qcow2::Plan {
  InFlightAllocations::Allocation allocation;
  HostRun run;
  bool reuse = false;   // host clusters that the mapping kept behind a zero flag
  uint64_t offset = 0;  // guest bytes written
  uint64_t length = 0;
  bool head_zero = false;  // what is before and behind them in their clusters reads zero
  bool tail_zero = false;
  uint64_t linked = 0;  // clusters
};

}  // namespace platter::format::qcow2
