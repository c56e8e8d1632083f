// A fault run: random work from a seed in which one file operation fails, or on a disk with so many
// pages to spare. Its caller takes the first, the second, the third... until the work passes
// without meeting the fault. The image must stay sound, and once the fault is gone the work must go
// on.
#pragma once

#include <cstdint>
#include <string>

#include "platter/error.h"

namespace platter::powercut {

enum class Fault { kIoError, kNoSpace };

struct FaultPlan {
  uint64_t seed = 0;
  bool trace = false;  // print every request
  Fault fault = Fault::kIoError;
  // From 1: which operation fails; how many pages less one are free.
  uint64_t number = 1;
};

struct FaultReport {
  bool met = false;  // the fault was reached
  std::string image;
  Result<void> result;
};

FaultReport run_fault(const FaultPlan& plan);

}  // namespace platter::powercut
