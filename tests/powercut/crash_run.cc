#include "powercut/crash_run.h"

#include <memory>
#include <utility>
#include <vector>

#include "base/try.h"
#include "fmt/format.h"
#include "io/simulation.h"
#include "powercut/image_session.h"
#include "workload/outside.h"
#include "workload/random.h"

namespace platter::powercut {

using workload::Random;

namespace {

constexpr uint64_t kMaxImageSize = uint64_t{2} << 20;
constexpr uint32_t kMaxClusterSize = uint32_t{256} << 10;
constexpr uint64_t kMaxSteps = 4000;

struct Run {
  CrashPlan plan;
  Random random;
  ImageSession session;
  unsigned cuts = 0;
};

void enter(Run& run, io::Simulation& simulation) {
  std::vector<io::Reactor*> reactors;
  for (unsigned i = 0; i < simulation.reactor_count(); ++i) {
    reactors.push_back(&simulation.reactor(i));
  }
  run.session.enter(simulation.files(), std::move(reactors), AfterError::kStop);
}

// A world over what is on `disk`, with one to three reactors.
std::unique_ptr<io::Simulation> boot(Run& run, const io::SimulatedDisk& disk) {
  uint64_t seed = run.random.next();
  io::Simulation::Options options;
  options.reactors = static_cast<unsigned>(run.random.between(1, 3));
  options.can_punch = !run.random.one_in(8);
  auto simulation = std::make_unique<io::Simulation>(seed, options, disk);
  enter(run, *simulation);
  return simulation;
}

// A sample of survivors goes to qemu-img: sound, or sound but for leaks.
Result<void> ask_qemu(io::Simulation& simulation) {
  workload::ScratchDirectory scratch;
  std::string image = scratch.path("image");
  for (const auto& [name, content] : simulation.disk().files()) {
    PLATTER_TRY(simulation.disk().export_file(name, scratch.directory() + name));
  }
  auto checked = workload::run_program({"qemu-img", "check", "-f", "qcow2", image});
  if (checked.exit_code == 0 || checked.exit_code == 3) return {};
  scratch.keep();
  return fail(EIO, fmt::format("qemu-img check: exit code {}\n{}", checked.exit_code,
                               checked.output.substr(0, 1000)));
}

VoidTask survey(Run& run, bool& dirty) {
  PLATTER_CO_ASSIGN(CheckOutcome outcome, co_await run.session.check());
  dirty = outcome.dirty;
  PLATTER_CO_TRY(co_await run.session.expect_sound(true));
  PLATTER_CO_TRY(co_await run.session.verify_survivor());
  if (dirty && run.random.one_in(2)) {
    // The next writer rebuilds the refcounts: not even leaks are left.
    PLATTER_CO_TRY(co_await run.session.open());
    PLATTER_CO_TRY(co_await run.session.close());
    PLATTER_CO_TRY(co_await run.session.expect_sound(false));
  }
  if (run.random.one_in(4)) {
    // What a dirty image's counts lack is more than leaks.
    const bool all = dirty || run.random.one_in(2);
    PLATTER_CO_TRY(co_await run.session.repair(all ? block::Repair::kAll : block::Repair::kLeaks));
    dirty = false;
  }
  co_return Result<void>{};
}

VoidTask last_life(Run& run, bool leaks_allowed) {
  PLATTER_CO_TRY(co_await run.session.open());
  PLATTER_CO_TRY(co_await run.session.verify());
  PLATTER_CO_TRY(co_await run.session.phase(5));
  PLATTER_CO_TRY(co_await run.session.verify());
  PLATTER_CO_TRY(co_await run.session.close());
  PLATTER_CO_TRY(co_await run.session.expect_sound(leaks_allowed));
  PLATTER_CO_TRY(co_await run.session.open());
  PLATTER_CO_TRY(co_await run.session.verify());
  co_return co_await run.session.close();
}

VoidTask one_life(Run& run, io::Simulation& simulation) {
  auto result = co_await run.session.lives([&simulation] { return simulation.power_is_cut(); });
  co_return result;
}

Result<void> rounds(Run& run) {
  auto simulation = boot(run, {});
  PLATTER_TRY(simulation->run(run.session.guarded(run.session.create())));
  for (unsigned round = 0; round < run.plan.rounds; ++round) {
    simulation->cut_power_after(1 + run.random.log_uniform(kMaxSteps));
    Result<void> life = simulation->run(run.session.guarded(one_life(run, *simulation)));
    if (!simulation->power_is_cut()) {
      return fail(EIO, fmt::format("round {}: before the cut: {}", round,
                                   life ? "ended early" : life.error().message()));
    }
    ++run.cuts;
    run.session.leave();
    io::SimulatedDisk survivor = simulation->disk();
    simulation.reset();
    simulation = boot(run, survivor);
    bool dirty = false;
    Result<void> survived = simulation->run(run.session.guarded(survey(run, dirty)));
    if (survived && run.plan.ask_qemu && !dirty) survived = ask_qemu(*simulation);
    if (!survived) {
      return std::unexpected(
          std::move(survived).error().with_context(fmt::format("round {}", round)));
    }
  }
  auto last =
      simulation->run(run.session.guarded(last_life(run, !run.session.setup().lazy_refcounts)));
  if (last && run.plan.ask_qemu) last = ask_qemu(*simulation);
  run.session.leave();
  return last;
}

workload::ImageSetup draw(Random& random, uint64_t seed) {
  workload::DrawLimits limits = {.max_size = kMaxImageSize,
                                 .max_cluster_size = kMaxClusterSize,
                                 .raw = false,
                                 .direct = false};
  return workload::draw_setup(random, seed, limits);
}

}  // namespace

CrashReport run_crashes(const CrashPlan& plan) {
  Random random(plan.seed);
  workload::ImageSetup setup = draw(random, plan.seed);
  Random session_random = random.fork();
  Run run = {plan, random, ImageSession(setup, session_random)};
  run.session.set_trace(plan.trace);
  CrashReport report;
  report.result = rounds(run);
  report.image = setup.describe();
  report.cuts = run.cuts;
  return report;
}

}  // namespace platter::powercut
