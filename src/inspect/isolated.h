// An inspection in a process of its own, inside the sandbox.
//
// The process is forked and does not execute another program: so not even a shared library is
// opened after the fork. The caller has one thread, and nothing in memory that an image's author
// must not see.
#pragma once

#include <cstdint>
#include <string>

#include "inspect/report.h"
#include "platter/error.h"

namespace platter::inspect {

struct IsolatedInspection {
  int descriptor = -1;     // open for reading
  uint64_t file_size = 0;  // bytes
  std::string format;      // empty: probe
  unsigned timeout_seconds = 5;
};

// An error also where the inspecting process was ended for what it did or used.
Result<Report> inspect_isolated(const IsolatedInspection& inspection);

}  // namespace platter::inspect
