// A crash run: one image, several power cuts one after another, all from a seed. Or it is the
// process that ends, and the machine stays up: then nothing that was acknowledged may be lost, and
// not even leaks may be left.
//
// Each round cuts the power at a random step of random work (opening and closing included), or a
// few steps after a point of the driver that was aimed at; a new world starts over what survived on
// the disk; the image must be sound there (leaks aside) and hold what flushes promised. The last
// round closes the image in good order and it must be as good as new.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "block/debug.h"
#include "platter/error.h"
#include "powercut/aim.h"
#include "workload/image_setup.h"

namespace platter::powercut {

struct CrashPlan {
  uint64_t seed = 0;
  bool trace = false;  // print every request
  unsigned rounds = 4;
  // Cuts shortly after this point, or moment, once it has been passed some times.
  std::optional<block::DebugEvent> at = std::nullopt;
  Moment moment = Moment::kNone;
  // Copies each survivor out of the simulation and asks qemu-img, too.
  bool ask_qemu = false;
  // It is the process that ends, and not the power.
  bool process_ends = false;
};

struct CrashReport {
  unsigned cuts = 0;
  unsigned hits = 0;  // of them where they were aimed at
  std::string image;  // what it was, for the failure line
  Result<void> result;
};

// Whether the point that is aimed at, the growth of a refcount table, is passed once in an image's
// life: later rounds are of no use.
bool happens_once(const CrashPlan& plan);

CrashReport run_crashes(const CrashPlan& plan);

}  // namespace platter::powercut
