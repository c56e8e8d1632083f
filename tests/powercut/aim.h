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

// What the session begins, rather than a point that the driver passes.
enum class Moment : uint8_t {
  kNone,
  kResize,
  kClose,       // of an image that has bitmaps
  kCompaction,  // of an encrypted image, too
  kRewrite,     // of the header: another name in it
  kSlots,       // a key slot is filled or erased
  kVmState,     // the state of a machine is written, or kept in a snapshot
};

struct Aim {
  std::optional<block::DebugEvent> event;  // after a moment: the first of its kind then
  Moment moment = Moment::kNone;
  uint64_t passes;  // this many go by first
  // After a moment: and then as many writes to the first `header_bytes` of the file.
  std::optional<uint64_t> header_writes = std::nullopt;
  uint64_t header_bytes = 0;
  // Called at the pass that is meant, once.
  std::function<void()> hit = nullptr;
  bool begun = false;  // the moment that is meant has come

  void pass(block::DebugEvent passed);
  void pass(Moment passed);
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
