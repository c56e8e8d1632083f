// Aim: a point that the driver passes (block/debug.h) near which the power is to be cut. Some
// windows between two writes are so short, or so rarely open, that a random step hardly ever falls
// into them.
//
// The image's file is opened through a filter, "aimed", whose points count down and then set the
// simulation's cut. The filter finds its Aim by a thread-local pointer, as a driver type has no
// other way to reach into one run.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "block/debug.h"
#include "block/driver.h"

namespace platter::powercut {

struct Aim {
  std::optional<block::DebugEvent> event;  // none: a resize of the image begins
  bool at_close = false;                   // neither: an image that has bitmaps is being closed
  bool at_compaction = false;              // none of them: an image begins to be compacted
  uint64_t passes;                         // this many go by first
  // at_close: and then as many writes to the header.
  std::optional<uint64_t> header_writes = std::nullopt;
  // Called at the pass that is meant, once.
  std::function<void()> hit;
  bool closing = false;  // the close that is meant has begun

  void pass(std::optional<block::DebugEvent> passed);
  void pass_close();
  void pass_compaction();
  void pass_write(uint64_t offset);
};

// Opens its child "file" and passes everything on.
extern const block::DriverType kAimed;

// While it lives, `aim` is what the points of kAimed on this thread tell; it must live as long.
class AimGuard {
 public:
  explicit AimGuard(Aim& aim);
  ~AimGuard();
  AimGuard(const AimGuard&) = delete;
  AimGuard& operator=(const AimGuard&) = delete;
};

}  // namespace platter::powercut
