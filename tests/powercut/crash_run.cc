#include "powercut/crash_run.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <utility>
#include <vector>

#include "base/try.h"
#include "fmt/format.h"
#include "io/descriptor.h"
#include "io/simulation.h"
#include "powercut/aim.h"
#include "powercut/image_session.h"
#include "workload/outside.h"
#include "workload/random.h"

namespace platter::powercut {

using workload::Random;

namespace {

constexpr uint64_t kMaxImageSize = uint64_t{2} << 20;
constexpr uint64_t kCrowdedSize = uint64_t{1920} << 10;
constexpr uint32_t kMaxClusterSize = uint32_t{256} << 10;
constexpr uint64_t kMaxSteps = 4000;
// Of 512-byte clusters with 64-bit counts a refcount table of one cluster counts 2 MiB of file. So
// much, preallocated, leaves it little room.
constexpr uint64_t kBrimSize = uint64_t{1980} << 10;
constexpr uint64_t kBrimSpread = uint64_t{6} << 10;
// The point may be passed many times before the one that counts, and be passed late or never.
constexpr uint64_t kMaxPasses = 12;
constexpr uint64_t kMaxStepsAfterAim = 60;
constexpr uint64_t kMaxStepsAfterTableGrowth = 12;
constexpr uint64_t kMaxStepsAfterClose = 250;  // most of them go by until bitmaps are stored
constexpr uint64_t kMaxStepsAfterSlots = 200;  // erased key material is overwritten many times
constexpr uint64_t kMaxHeaderWrites = 5;
constexpr uint64_t kMaxStepsAfterHeaderWrite = 6;
constexpr uint64_t kMaxCompactionsBefore = 3;
constexpr uint64_t kMaxStepsOfCompaction = 400;
constexpr uint64_t kMaxStepsAfterMove = 8;
constexpr uint64_t kHeaderSpace = 8192;  // of larger clusters
constexpr uint64_t kMaxStepsToAim = 20000;
constexpr uint64_t kMaxStepsToTakeUp = 400;
constexpr uint64_t kNever = uint64_t{1} << 62;

struct Run {
  CrashPlan plan;
  Random random;
  ImageSession session;
  // Where what outlives the process is, and a copy as it was when the process ended: what it does
  // from then on has not happened.
  std::unique_ptr<workload::ScratchDirectory> scratch{};
  unsigned cuts = 0;
  unsigned hits = 0;

  bool aims() const { return plan.at.has_value() || plan.moment != Moment::kNone; }
  std::string states() const { return scratch ? scratch->path("states") : ""; }
  std::filesystem::path left_states() const { return scratch->path("left"); }
};

void enter(Run& run, io::Simulation& simulation) {
  std::vector<io::Reactor*> reactors;
  for (unsigned i = 0; i < simulation.reactor_count(); ++i) {
    reactors.push_back(&simulation.reactor(i));
  }
  run.session.enter(simulation.files(), std::move(reactors), AfterError::kStop, run.states());
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

namespace files = std::filesystem;

// State files are much longer than what is in them.
void copy_sparsely(const files::path& from, const files::path& to) {
  const io::Descriptor source(open(from.c_str(), O_RDONLY | O_CLOEXEC));
  const io::Descriptor target(open(to.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  const auto size = static_cast<off_t>(files::file_size(from));
  std::vector<char> bytes;
  for (off_t at = 0; at < size;) {
    const off_t data = lseek(source.get(), at, SEEK_DATA);
    if (data < 0) break;
    at = lseek(source.get(), data, SEEK_HOLE);
    bytes.resize(static_cast<size_t>(at - data));
    const ssize_t got = pread(source.get(), bytes.data(), bytes.size(), data);
    PLATTER_ASSERT(got == at - data &&
                   pwrite(target.get(), bytes.data(), bytes.size(), data) == got);
  }
  PLATTER_ASSERT(ftruncate(target.get(), size) == 0);
}

// From here on it is over for the process.
void end_process(Run& run) {
  files::remove_all(run.left_states());
  if (!files::exists(run.states())) return;
  files::create_directory(run.left_states());
  for (const auto& entry : files::directory_iterator(run.states()))
    copy_sparsely(entry.path(), run.left_states() / entry.path().filename());
}

void take_left_states(Run& run) {
  files::remove_all(run.states());
  if (files::exists(run.left_states())) files::rename(run.left_states(), run.states());
}

void cut_after(Run& run, io::Simulation& simulation, uint64_t steps) {
  if (run.plan.process_ends) {
    simulation.end_process_after(steps, [&run] {
      run.session.keep_acknowledged();
      end_process(run);
    });
  } else {
    simulation.cut_power_after(steps);
  }
}

// A sample of survivors goes to qemu-img: sound, or sound but for leaks.
Result<void> ask_qemu(io::Simulation& simulation, const workload::ImageSetup& setup) {
  workload::ScratchDirectory scratch;
  std::string image = scratch.path("image");
  for (const auto& [name, content] : simulation.disk().files()) {
    PLATTER_TRY(simulation.disk().export_file(name, scratch.directory() + name));
  }
  std::string options = setup.qemu_image_options(image);
  if (simulation.disk().files().contains(ImageSession::kDataPath)) {
    options += ",data-file.driver=file,data-file.filename=" + scratch.path("data");
  }
  auto checked = workload::run_program({"qemu-img", "check", "--object",
                                        workload::FixedSecrets::qemu_object(setup.secret),
                                        "--image-opts", options});
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
  if (happens_once(run.plan)) PLATTER_CO_TRY(co_await run.session.grow_preallocated());
  auto result = co_await run.session.lives([&simulation] { return simulation.power_is_cut(); });
  co_return result;
}

// What to aim at, and how many steps later to cut.
Aim draw_aim(Run& run, uint64_t& steps) {
  const bool growth = happens_once(run.plan);
  const Moment moment = run.plan.moment;
  Aim aim = {.event = run.plan.at,
             .moment = moment,
             .passes = growth ? 0 : run.random.log_uniform(kMaxPasses),
             .header_bytes = std::min<uint64_t>(run.session.setup().cluster_size, kHeaderSpace)};
  const uint64_t most = growth                     ? kMaxStepsAfterTableGrowth
                        : moment == Moment::kSlots ? kMaxStepsAfterSlots
                                                   : kMaxStepsAfterAim;
  steps = 1 + run.random.log_uniform(most);
  if (moment == Moment::kCompaction) {
    aim.passes = run.random.below(kMaxCompactionsBefore);
    // Where clusters are about to be named in their new places, or anywhere.
    const bool near = run.random.one_in(2);
    if (near) aim.event = block::DebugEvent::kL2Update;
    steps = 1 + run.random.below(near ? kMaxStepsAfterMove : kMaxStepsOfCompaction);
  }
  if (moment != Moment::kClose && moment != Moment::kRewrite) return aim;
  if (run.random.one_in(3)) {
    if (moment == Moment::kClose) steps = 1 + run.random.below(kMaxStepsAfterClose);
    return aim;
  }
  // Where bitmaps are stored for the first time the header is written most often.
  if (run.random.one_in(2)) aim.passes = 0;
  aim.header_writes = run.random.below(kMaxHeaderWrites);
  steps = 1 + run.random.below(kMaxStepsAfterHeaderWrite);
  return aim;
}

// Works until the power is cut.
Result<void> life_to_cut(Run& run, io::Simulation& simulation) {
  if (!run.aims()) {
    cut_after(run, simulation, 1 + run.random.log_uniform(kMaxSteps));
    return simulation.run(run.session.guarded(one_life(run, simulation)));
  }
  cut_after(run, simulation, kMaxStepsToAim);
  uint64_t steps = 0;
  Aim aim = draw_aim(run, steps);
  aim.hit = [&] {
    ++run.hits;
    cut_after(run, simulation, steps);
  };
  AimGuard guard(aim);
  run.session.set_aim(&aim);
  auto life = simulation.run(run.session.guarded(one_life(run, simulation)));
  run.session.set_aim(nullptr);
  return life;
}

// The next process takes up what the one before has left. It may end at that, too.
VoidTask take_up(Run& run) {
  PLATTER_CO_TRY(co_await run.session.verify_survivor(true));
  co_return co_await run.session.expect_sound(false);
}

Result<void> next_process(Run& run, std::unique_ptr<io::Simulation>& simulation) {
  for (;;) {
    take_left_states(run);
    const bool ends_too = run.random.one_in(3);
    // What the one before was told after its end does not count.
    if (ends_too) {
      simulation->end_process_after(1 + run.random.log_uniform(kMaxStepsToTakeUp),
                                    [&run] { end_process(run); });
    }
    auto taken = simulation->run(run.session.guarded(take_up(run)));
    if (!simulation->power_is_cut()) {
      simulation->cut_power_after(kNever);
      return taken;
    }
    ++run.cuts;
    run.session.leave();
    io::SimulatedDisk survivor = simulation->disk();
    simulation.reset();
    simulation = boot(run, survivor);
  }
}

Result<void> rounds(Run& run) {
  auto simulation = boot(run, {});
  PLATTER_TRY(simulation->run(run.session.guarded(run.session.create())));
  for (unsigned round = 0; round < run.plan.rounds; ++round) {
    Result<void> life = life_to_cut(run, *simulation);
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
    Result<void> survived;
    if (run.plan.process_ends) survived = next_process(run, simulation);
    if (survived) survived = simulation->run(run.session.guarded(survey(run, dirty)));
    if (survived && run.plan.ask_qemu && !dirty)
      survived = ask_qemu(*simulation, run.session.setup());
    if (!survived) {
      return std::unexpected(
          std::move(survived).error().with_context(fmt::format("round {}", round)));
    }
  }
  auto last =
      simulation->run(run.session.guarded(last_life(run, !run.session.setup().lazy_refcounts)));
  if (last && run.plan.ask_qemu) last = ask_qemu(*simulation, run.session.setup());
  run.session.leave();
  return last;
}

// Small clusters and wide counts: tables fill up and grow soon. Counts that are out of date by
// design would hide what was lost of them.
workload::ImageSetup draw_crowded(Random& random, bool to_the_brim) {
  workload::ImageSetup setup;
  setup.cluster_size = 512;
  setup.refcount_bits = 64;
  setup.size = random.between(kCrowdedSize / 2, kCrowdedSize) / 512 * 512;
  setup.small_caches = random.one_in(2);
  setup.unmap = random.one_in(2);
  if (to_the_brim) {
    setup.size = kBrimSize - random.below(kBrimSpread / 512) * 512;
    setup.preallocation = "metadata";
  } else if (random.one_in(2)) {
    setup.backing = workload::BackingKind::kRaw;
    setup.backing_size = setup.size * 3 / 2 / 512 * 512;
  } else {
    setup.preallocation = "metadata";
  }
  return setup;
}

// A moment asks for an image that has it.
workload::ImageSetup draw(Random& random, uint64_t seed, Moment moment) {
  workload::DrawLimits limits = {.max_size = kMaxImageSize,
                                 .max_cluster_size = kMaxClusterSize,
                                 .raw = false,
                                 .direct = false};
  workload::ImageSetup setup = workload::draw_setup(random, seed, limits);
  const bool compacts = moment == Moment::kCompaction;
  if (moment == Moment::kClose || (compacts && seed % 2 == 0)) {
    setup.compat = "1.1";
    setup.bitmaps = true;
  }
  if (compacts && seed % 3 != 0 && setup.data_file != workload::DataFile::kRaw) {
    setup.encryption = "luks";
    setup.preallocation = "off";
  } else if (moment == Moment::kRewrite && !setup.has_data_file() &&
             setup.backing == workload::BackingKind::kNone) {
    setup.backing = workload::BackingKind::kRaw;
    setup.backing_size = setup.size;
    setup.preallocation = "off";
  } else if (moment == Moment::kSlots) {
    setup.encryption = "luks";
    setup.preallocation = "off";
    if (setup.data_file == workload::DataFile::kRaw)
      setup.data_file = workload::DataFile::kExternal;
  } else if (moment == Moment::kVmState) {
    setup.data_file = workload::DataFile::kNone;
  }
  return setup;
}

}  // namespace

bool happens_once(const CrashPlan& plan) {
  return plan.at == block::DebugEvent::kRefblockAllocWriteTable ||
         plan.at == block::DebugEvent::kRefblockAllocSwitchTable;
}

CrashReport run_crashes(const CrashPlan& plan) {
  Random random(plan.seed);
  workload::ImageSetup setup = plan.at || plan.moment == Moment::kResize
                                   ? draw_crowded(random, happens_once(plan))
                                   : draw(random, plan.seed, plan.moment);
  Random session_random = random.fork();
  Run run = {plan, random, ImageSession(setup, session_random)};
  if (plan.process_ends) run.scratch = std::make_unique<workload::ScratchDirectory>();
  run.session.set_trace(plan.trace);
  CrashReport report;
  report.result = rounds(run);
  report.image = setup.describe();
  report.cuts = run.cuts;
  report.hits = run.hits;
  return report;
}

}  // namespace platter::powercut
