// Debugging points: where a driver's work can be watched, stopped and made to fail.
//
// A driver passes a point by telling the child that the coming request goes to. Where the child is
// a filter made for it (filter/blkdebug), that filter may hold the caller there, or have later
// requests fail. Everywhere else a point costs a look at a pointer: ask Child::has_debug_points()
// before anything is awaited.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "io/task.h"
#include "platter/error.h"

namespace platter::block {

enum class DebugEvent : uint8_t {
  kL1Update,
  kL1GrowAllocTable,
  kL1GrowWriteTable,
  kL1GrowActivateTable,
  kL2Load,
  kL2Update,
  kL2UpdateCompressed,
  kL2AllocCowRead,
  kL2AllocWrite,
  kReadAio,
  kReadBackingAio,
  kReadCompressed,
  kWriteAio,
  kWriteCompressed,
  kVmstateLoad,
  kVmstateSave,
  kCowRead,
  kCowWrite,
  kReftableLoad,
  kReftableGrow,
  kReftableUpdate,
  kRefblockLoad,
  kRefblockUpdate,
  kRefblockUpdatePart,
  kRefblockAlloc,
  kRefblockAllocHookup,
  kRefblockAllocWrite,
  kRefblockAllocWriteBlocks,
  kRefblockAllocWriteTable,
  kRefblockAllocSwitchTable,
  kClusterAlloc,
  kClusterAllocBytes,
  kClusterFree,
  kFlushToOs,
  kFlushToDisk,
  kPwritevRmwHead,
  kPwritevRmwAfterHead,
  kPwritevRmwTail,
  kPwritevRmwAfterTail,
  kPwritev,
  kPwritevZero,
  kPwritevDone,
  kEmptyImagePrepare,
  kL1ShrinkWriteTable,
  kL1ShrinkFreeL2Clusters,
  kCorWrite,
  kClusterAllocSpace,
  kNone,
};

// "l1_update", ...: by the value of the enum.
std::span<const std::string_view> debug_event_names();
std::optional<DebugEvent> find_debug_event(std::string_view name);

// What a driver hands out that has such points for others. Any thread.
class DebugPoints {
 public:
  virtual ~DebugPoints() = default;
  // A caller passes here. Resumes when it may go on.
  virtual io::Task<void> pass(DebugEvent event) = 0;

  // Holds the next caller that passes `event`, under the name `tag`.
  virtual Result<void> add_breakpoint(DebugEvent event, std::string tag) = 0;
  // Forgets the breakpoints of that name, and lets go whom one of them holds. ENOENT: there was
  // none that still waited for somebody.
  virtual Result<void> remove_breakpoint(std::string_view tag) = 0;
  // Lets go the one that has been held longest. ENOENT: none is held under that name.
  virtual Result<void> resume(std::string_view tag) = 0;
  virtual bool is_held(std::string_view tag) = 0;
  // Forgets every breakpoint and lets go everybody.
  virtual void release_all() = 0;
  // Hears of everyone who is held or let go, on the thread where it happens. Set while nobody
  // passes.
  struct Change {
    bool held;
    std::string_view tag;
  };
  virtual void set_listener(std::function<void(Change)> listener) = 0;
};

}  // namespace platter::block
