#include "powercut/fault_run.h"

#include <cerrno>
#include <memory>
#include <utility>
#include <vector>

#include "base/try.h"
#include "fmt/format.h"
#include "io/simulation.h"
#include "powercut/image_session.h"
#include "workload/random.h"

namespace platter::powercut {

using workload::Random;

namespace {

constexpr unsigned kPhases = 3;
constexpr unsigned kOperations = 3;

struct Run {
  FaultPlan plan;
  ImageSession session;
  bool met = false;
};

// Work during which the fault strikes: requests that fail are read back, and the work goes on.
// Opening and closing may fail, too.
VoidTask work_with_fault(Run& run, uint64_t& failures) {
  auto opened = co_await run.session.open();
  if (!opened) {
    ++failures;
    opened = co_await run.session.open();
    // Of the disk that is full for good an image need not be opened for writing.
    if (!opened && run.plan.fault == Fault::kNoSpace) co_return Result<void>{};
    if (!opened) co_return opened;
  }
  Result<void> result;
  for (unsigned i = 0; result && i < kPhases; ++i) result = co_await run.session.phase(kOperations);
  auto closed = co_await run.session.close();
  failures += run.session.failed_requests() + !closed.has_value();
  co_return result;
}

VoidTask aftermath(Run& run) {
  PLATTER_CO_TRY(co_await run.session.expect_sound(run.met));
  PLATTER_CO_TRY(co_await run.session.verify_survivor());
  PLATTER_CO_TRY(co_await run.session.open());
  PLATTER_CO_TRY(co_await run.session.verify());
  PLATTER_CO_TRY(co_await run.session.phase(kOperations));
  PLATTER_CO_TRY(co_await run.session.verify());
  PLATTER_CO_TRY(co_await run.session.close());
  co_return co_await run.session.expect_sound(run.met);
}

std::unique_ptr<io::Simulation> boot(Run& run, uint64_t seed, const io::SimulatedDisk& disk,
                                     uint64_t capacity = UINT64_MAX) {
  auto simulation = std::make_unique<io::Simulation>(
      seed,
      io::Simulation::Options{.reactors = 1 + static_cast<unsigned>(run.plan.seed % 2),
                              .capacity = capacity},
      disk);
  std::vector<io::Reactor*> reactors;
  for (unsigned i = 0; i < simulation->reactor_count(); ++i) {
    reactors.push_back(&simulation->reactor(i));
  }
  run.session.enter(simulation->files(), std::move(reactors), AfterError::kGoOn);
  return simulation;
}

uint64_t pages_on(const io::SimulatedDisk& disk) {
  uint64_t pages = 0;
  for (const auto& [name, content] : disk.files()) pages += content.bytes.page_count();
  return pages;
}

// Shuts the world down in good order and returns its disk.
io::SimulatedDisk shut_down(Run& run, std::unique_ptr<io::Simulation> simulation) {
  run.session.leave();
  return simulation->disk();
}

Result<void> work(Run& run) {
  const uint64_t seed = run.plan.seed;
  auto simulation = boot(run, seed, {});
  PLATTER_TRY(simulation->run(run.session.guarded(run.session.create())));
  io::SimulatedDisk disk = shut_down(run, std::move(simulation));

  uint64_t capacity = UINT64_MAX;
  if (run.plan.fault == Fault::kNoSpace) {
    capacity = (pages_on(disk) + run.plan.number - 1) * io::SparseBytes::kPageBytes;
  }
  simulation = boot(run, seed + 1, disk, capacity);
  if (run.plan.fault == Fault::kIoError) {
    simulation->fail_operation(run.plan.number - 1, EIO);
  }
  uint64_t failures = 0;
  Result<void> result = simulation->run(run.session.guarded(work_with_fault(run, failures)));
  run.met = run.plan.fault == Fault::kIoError ? simulation->operations() >= run.plan.number
                                              : failures != 0;
  disk = shut_down(run, std::move(simulation));
  if (!result) return result;
  if (!run.met && failures != 0) return fail(EIO, "something failed without a fault");

  // The fault has passed, and there is room again.
  simulation = boot(run, seed + 2, disk);
  result = simulation->run(run.session.guarded(aftermath(run)));
  run.session.leave();
  return result;
}

}  // namespace

FaultReport run_fault(const FaultPlan& plan) {
  Random random(plan.seed);
  workload::DrawLimits limits = {.max_size = uint64_t{1} << 20,
                                 .max_cluster_size = uint32_t{64} << 10,
                                 .raw = false,
                                 .direct = false};
  workload::ImageSetup setup = workload::draw_setup(random, plan.seed, limits);
  Run run = {plan, ImageSession(setup, random.fork())};
  run.session.set_trace(plan.trace);
  FaultReport report;
  report.result = work(run);
  report.met = run.met;
  report.image = setup.describe();
  return report;
}

}  // namespace platter::powercut
