// The rules of blkdebug: at which points of a driver's work (block/debug.h) requests begin to fail,
// stop, or the state changes that other rules ask for.
//
// A rule acts when its event is passed in its state. One that injects errors stays in force until
// an event brings others into force; a rule on the event "none" is in force from the start.
//
// Thread-safety: any thread.
#pragma once

#include <atomic>
#include <list>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/options.h"
#include "block/driver.h"
#include "io/event.h"

namespace platter::filter::blkdebug {

enum class Operation : unsigned { kRead, kWrite, kWriteZeroes, kDiscard, kFlush, kBlockStatus };

struct Injection {
  block::DebugEvent event;
  uint64_t state = 0;              // 0: any
  unsigned operations = 0;         // bits of Operation
  int code = 0;                    // errno; 0: the request passes
  std::optional<uint64_t> offset;  // only requests that cover this byte
  bool once = false;
};

struct StateChange {
  block::DebugEvent event;
  uint64_t state = 0;
  uint64_t new_state = 0;
};

struct RuleSet {
  std::vector<Injection> injections;
  std::vector<StateChange> changes;

  // One rule, as an "inject-error" or "set-state" section has it.
  Result<void> add_injection(const base::Options& options);
  Result<void> add_change(const base::Options& options);
};

// Reads the rules of a configuration file: sections in brackets, `key = "value"` lines.
Result<void> parse_config(std::string_view text, RuleSet& rules);

class Rules final : public block::DebugPoints {
 public:
  explicit Rules(RuleSet rules);

  // Whether check() may find anything.
  bool in_force() const { return in_force_.load(std::memory_order_acquire); }
  // What the request meets. `length` 0: it covers no byte (a flush).
  Result<void> check(Operation operation, uint64_t offset, uint64_t length);

  // ---- block::DebugPoints
  io::Task<void> pass(block::DebugEvent event) override;
  Result<void> add_breakpoint(block::DebugEvent event, std::string tag) override;
  Result<void> remove_breakpoint(std::string_view tag) override;
  Result<void> resume(std::string_view tag) override;
  bool is_held(std::string_view tag) override;
  void release_all() override;
  void set_listener(std::function<void(Change)> listener) override;

 private:
  struct Breakpoint {
    block::DebugEvent event;
    std::string tag;
  };
  // A caller that waits in pass(). Lives in its frame.
  struct Held {
    std::string tag;
    io::Event go;
  };

  // Under mutex_.
  void settle_injections(block::DebugEvent event);
  void change_state(block::DebugEvent event);
  bool hold(block::DebugEvent event, Held& held);
  std::list<Held*>::iterator let_go(std::list<Held*>::iterator held);

  std::mutex mutex_;
  std::list<Injection> injections_;
  std::vector<StateChange> changes_;
  std::vector<std::list<Injection>::iterator> active_;
  std::list<Breakpoint> breakpoints_;
  std::list<Held*> held_;  // the longest held first
  std::function<void(Change)> listener_;
  uint64_t state_ = 1;
  std::atomic<bool> in_force_{false};
};

}  // namespace platter::filter::blkdebug
