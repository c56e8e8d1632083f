// property_test [--seed=N] [--ops=N] [--seconds=N] [--runs=N] [--reactors=N] [--workers=N]
//               [--engine=io_uring|threads|simulated] [--max-size=N] [--format=raw|qcow2]
//               [gtest options]
//
// Without options: a fixed number of seeds on every kind of world. With --seed: that one run alone,
// as the line that a failure prints has it; --seconds makes it as long as that, on one image.
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

#include "base/try.h"
#include "fmt/format.h"
#include "gtest/gtest.h"
#include "property/runner.h"
#include "workload/outside.h"

namespace platter::property {
namespace {

using workload::WorldKind;

struct Settings {
  std::optional<uint64_t> seed;
  std::optional<std::string> engine;
  std::optional<unsigned> reactors;
  std::optional<unsigned> runs;
  RunPlan plan;
};

Settings& settings() {
  static Settings instance;
  return instance;
}

// What others read in a raw data file is what the guest sees.
Result<void> check_raw_data_file(const Runner& runner, const std::string& data,
                                 const workload::ScratchDirectory& scratch) {
  if (!runner.data_is_raw()) return {};
  auto compared = workload::run_program(
      {"qemu-img", "compare", "-f", "raw", "-F", "raw", data, scratch.path("expected")});
  if (compared.exit_code != 0) return fail(EIO, "compare with the data file: " + compared.output);
  return {};
}

Result<void> check_with_qemu(const Runner& runner, workload::World& world,
                             const workload::ScratchDirectory& scratch) {
  // A simulated world's files are copied to where their names say, so that the header's backing
  // name leads to the backing file.
  PLATTER_ASSIGN(std::string image, world.visible_path(runner.image_path()));
  if (runner.setup().backing != workload::BackingKind::kNone) {
    PLATTER_TRY(world.visible_path(scratch.path("backing")));
  }
  if (runner.setup().has_data_file()) {
    PLATTER_ASSIGN(const std::string data, world.visible_path(runner.data_path()));
    PLATTER_TRY(workload::write_file(scratch.path("expected"), runner.expected()));
    PLATTER_TRY(check_raw_data_file(runner, data, scratch));
  }
  if (runner.setup().is_qcow2()) {
    auto checked =
        workload::run_program({"qemu-img", "check", "--object",
                               workload::FixedSecrets::qemu_object(runner.setup().secret),
                               "--image-opts", runner.setup().qemu_image_options(image)});
    if (checked.exit_code != 0) {
      return fail(EIO, fmt::format("qemu-img check: exit code {}\n{}", checked.exit_code,
                                   checked.output.substr(0, 1500)));
    }
  }
  PLATTER_TRY(workload::write_file(scratch.path("expected"), runner.expected()));
  auto compared = workload::run_program({"qemu-img", "compare", "--object",
                                         workload::FixedSecrets::qemu_object(runner.setup().secret),
                                         "--image-opts", runner.setup().qemu_image_options(image),
                                         "driver=raw,file.filename=" + scratch.path("expected")});
  if (compared.exit_code != 0) return fail(EIO, "qemu-img compare: " + compared.output);
  return {};
}

void run_seed(WorldKind kind, unsigned reactors, RunPlan plan) {
  workload::ScratchDirectory scratch;
  auto world = workload::make_world(kind, reactors, plan.seed);
  Runner runner(*world, plan, scratch.directory());
  if (plan.seconds != 0) fmt::print("{}\n", runner.setup().describe());
  Result<void> result = runner.run();
  if (result) result = check_with_qemu(runner, *world, scratch);
  if (result) return;
  if (settings().seed) scratch.keep();
  ADD_FAILURE() << result.error().message() << "\n  image: " << runner.setup().describe()
                << "\n  again: property_test --engine=" << workload::world_kind_name(kind)
                << " --reactors=" << reactors << " --ops=" << plan.operations
                << (plan.format.empty() ? "" : " --format=" + plan.format)
                << " --workers=" << plan.workers_per_reactor << " --max-size=" << plan.max_size
                << " --seed=" << plan.seed;
}

// Every thirteenth seed has the same cluster size. A sanitizer makes a run cost many times as much.
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr unsigned kDefaultRuns = 26;
#else
constexpr unsigned kDefaultRuns = 78;
#endif

void run_seeds(WorldKind kind, unsigned reactors) {
  if (settings().engine.value_or(workload::world_kind_name(kind)) !=
          workload::world_kind_name(kind) ||
      settings().reactors.value_or(reactors) != reactors) {
    GTEST_SKIP() << "another engine or number of reactors was asked for";
  }
  RunPlan plan = settings().plan;
  if (settings().seed) {
    plan.seed = *settings().seed;
    return run_seed(kind, reactors, plan);
  }
  const unsigned runs = settings().runs.value_or(kDefaultRuns);
  for (plan.seed = 0; plan.seed < runs && !::testing::Test::HasFailure(); ++plan.seed) {
    run_seed(kind, reactors, plan);
  }
}

TEST(Property, UringOneReactor) { run_seeds(WorldKind::kUring, 1); }
TEST(Property, UringFourReactors) { run_seeds(WorldKind::kUring, 4); }
TEST(Property, ThreadsOneReactor) { run_seeds(WorldKind::kThreads, 1); }
TEST(Property, ThreadsFourReactors) { run_seeds(WorldKind::kThreads, 4); }
TEST(Property, SimulatedOneReactor) { run_seeds(WorldKind::kSimulated, 1); }
TEST(Property, SimulatedFourReactors) { run_seeds(WorldKind::kSimulated, 4); }

bool take_option(std::string_view argument) {
  size_t equals = argument.find('=');
  if (equals == std::string_view::npos || !argument.starts_with("--")) return false;
  std::string_view name = argument.substr(2, equals - 2);
  std::string value(argument.substr(equals + 1));
  uint64_t number = std::strtoull(value.c_str(), nullptr, 0);
  Settings& all = settings();
  if (name == "seed") {
    all.seed = number;
  } else if (name == "ops") {
    all.plan.operations = static_cast<unsigned>(number);
  } else if (name == "seconds") {
    all.plan.seconds = static_cast<unsigned>(number);
  } else if (name == "runs") {
    all.runs = static_cast<unsigned>(number);
  } else if (name == "workers") {
    all.plan.workers_per_reactor = static_cast<unsigned>(number);
  } else if (name == "max-size") {
    all.plan.max_size = number;
  } else if (name == "reactors") {
    all.reactors = static_cast<unsigned>(number);
  } else if (name == "format") {
    all.plan.format = value;
  } else if (name == "engine") {
    all.engine = value;
  } else {
    return false;
  }
  return true;
}

}  // namespace
}  // namespace platter::property

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i < argc; ++i) {
    if (!platter::property::take_option(argv[i])) {
      std::fprintf(stderr, "property_test: unknown option '%s'\n", argv[i]);
      return 2;
    }
  }
  return RUN_ALL_TESTS();
}
