// Simulation: a world in which code that runs on reactors runs deterministically, from a seed, on
// the calling thread: N simulated reactors, a virtual clock, a disk that can fail and lose power.
//
//   Simulation sim(seed, {.reactors = 2});
//   sim.cut_power_after(500);
//   auto end = sim.run(workload(sim.files()));        // Task<T> -> T
//   Simulation after(seed + 1, {}, sim.disk());       // the next boot, over what survived
//   auto check = after.run(reopen_and_check(after.files()));
//
// Time passes in steps. A step resumes one ready task or completes one disk operation, drawn at
// random from all there are on all reactors; when there is nothing, the clock jumps to the next
// timer. The same seed and the same workload give the same steps. A step is about 100 ns.
//
// Power. When the power is cut, the surviving disk is drawn and frozen at that instant
// (io/simulated_disk.h says what survives). The old world then runs on only so that its tasks can
// unwind: every operation, those in flight and all later ones, fails with EIO and completes, timers
// still fire, nothing reaches the disk. So run() returns as ever, nothing leaks, and disk() is what
// the next world starts from. A task must therefore end when its I/O fails: one that retries for
// ever is caught by max_steps.
//
// Faults. Operations may fail or fall short at random (Options) or by their number
// (fail_operation). A failed write has changed any of its sectors or none; a failed sync has made
// nothing durable, and a later one that succeeds does.
//
// Single-threaded; several simulations may live at the same time (one run() within another is not
// possible). Reactor::call runs its function on the reactor, in a step of its own.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "io/reactor.h"
#include "io/simulated_disk.h"

namespace platter::io {

class SimulatedFile;

class Simulation {
 public:
  struct Options {
    unsigned reactors = 1;
    uint64_t capacity = UINT64_MAX;   // bytes of all files' pages; past it ENOSPC
    uint32_t direct_alignment = 512;  // of files opened direct; else EINVAL
    // How many operations of a million fail with EIO, or transfer less than was asked.
    uint32_t read_errors_ppm = 0;
    uint32_t write_errors_ppm = 0;  // and allocations
    uint32_t sync_errors_ppm = 0;
    uint32_t short_transfers_ppm = 0;
    bool can_punch = true;  // false: kPunchHole and kZeroRange are ENOTSUP
    // A run() that takes more steps than this does not end: the process is stopped, seed told.
    uint64_t max_steps = 200'000'000;
  };

  explicit Simulation(uint64_t seed);
  Simulation(uint64_t seed, Options options, const SimulatedDisk& disk = {});
  ~Simulation();  // runs what is left; every file of this world is closed before (asserted)
  Simulation(const Simulation&) = delete;
  Simulation& operator=(const Simulation&) = delete;

  FileSystem& files();
  Reactor& reactor(unsigned index) { return *reactors_.at(index); }
  unsigned reactor_count() const { return static_cast<unsigned>(reactors_.size()); }
  Random& random() { return random_; }

  // Runs `task` on a reactor until it has ended, and whatever else is going on beside it. A
  // deadlock (nothing ready, nothing in flight, no timer) stops the process, seed told.
  template <typename T>
  T run(Task<T> task, unsigned reactor_index = 0);
  // Until nothing is ready or in flight and no timer is set.
  void run_until_idle();

  uint64_t steps() const { return steps_; }
  Nanoseconds now() const { return now_; }

  // Before the step that comes after so many more.
  void cut_power_after(uint64_t steps) { cut_at_ = steps_ + steps; }
  void cut_power();
  // The same, and the machine stays up: what had completed is there, and of what was in flight any
  // part. `at_end` is called at that instant.
  void end_process_after(uint64_t steps, std::function<void()> at_end) {
    cut_power_after(steps);
    at_end_ = std::move(at_end);
  }
  bool power_is_cut() const { return power_is_cut_; }
  // The power was cut: what survived. Else: every file as it is now (the machine stays up, its
  // users end).
  SimulatedDisk disk() const;

  // The operation with this number, counted from 0 over all files as they are submitted, fails with
  // `code`. See operations().
  void fail_operation(uint64_t number, int code) { planned_[number] = code; }
  uint64_t operations() const { return operations_; }

 private:
  friend class SimulatedFile;
  class Engine;
  class Files;

  struct Pending {
    IoRequest* request;
    std::shared_ptr<SimulatedMedium> medium;
    uint64_t completed_before;  // a sync covers the changes up to here
    int error;                  // 0: none planned
  };

  bool step();  // false: nothing to do
  void submit(IoRequest& request);
  void complete(size_t position);
  int64_t perform(Pending& pending);
  int64_t perform_transfer(Pending& pending);
  int64_t perform_allocate(Pending& pending);
  int draw_error(IoRequest::Kind kind);
  bool chance(uint32_t ppm) { return ppm != 0 && random_.below(1'000'000) < ppm; }
  bool has_room(const SimulatedMedium& medium, uint64_t offset, uint64_t length) const;
  void land_partially(const Pending& pending);
  void run_one_step_of(uint64_t limit);
  [[noreturn]] void give_up(const char* why) const;

  const uint64_t seed_;
  const Options options_;
  Random random_;
  Nanoseconds now_{};
  uint64_t steps_ = 0;
  uint64_t cut_at_ = UINT64_MAX;
  bool power_is_cut_ = false;
  std::function<void()> at_end_;  // null: it is the power that goes
  uint64_t operations_ = 0;
  std::map<uint64_t, int> planned_;
  std::vector<Pending> pending_;
  unsigned open_files_ = 0;
  SimulatedDisk survivor_;
  std::unique_ptr<Files> files_;
  std::vector<std::unique_ptr<Reactor>> reactors_;
};

template <typename T>
T Simulation::run(Task<T> task, unsigned reactor_index) {
  detail::BlockingResult<T> result;
  detail::run_for_thread(std::move(task), result).start_on(reactor(reactor_index));
  uint64_t limit = steps_ + options_.max_steps;
  while (!result.has_ended) run_one_step_of(limit);
  if constexpr (!std::is_void_v<T>) return std::move(*result.value);
}

}  // namespace platter::io
