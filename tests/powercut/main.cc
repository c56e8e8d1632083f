// powercut_test [--seed=N] [--runs=N] [--rounds=N] [--number=N] [--point=NAME] [--trace] [gtest
// options]
//
// Without options: a fixed number of seeds. With --seed: that one run alone, as the line that a
// failure prints has it. --runs=N takes N seeds: the long form of the suite.
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "gtest/gtest.h"
#include "powercut/crash_run.h"
#include "powercut/fault_run.h"

namespace platter::powercut {
namespace {

struct Settings {
  std::optional<uint64_t> seed;
  std::optional<uint64_t> runs;
  std::optional<uint64_t> number;
  unsigned rounds = 4;
  bool trace = false;
  std::string point;  // of the aimed runs: this one alone
};

Settings& settings() {
  static Settings instance;
  return instance;
}

// A sanitizer makes a run cost many times as much.
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr uint64_t kDefaultRuns = 150;
constexpr uint64_t kDefaultFaultRuns = 6;
constexpr uint64_t kDefaultAimedRuns = 3;
#else
constexpr uint64_t kDefaultRuns = 750;
constexpr uint64_t kDefaultFaultRuns = 26;
constexpr uint64_t kDefaultAimedRuns = 12;
#endif

// Every so many seeds qemu-img is asked for its opinion.
constexpr uint64_t kSeedsBetweenQemu = 16;

TEST(PowerCut, LeavesASoundImageWithAllThatWasFlushed) {
  const Settings& all = settings();
  uint64_t first = all.seed.value_or(0);
  uint64_t last = all.seed ? first + 1 : all.runs.value_or(kDefaultRuns);
  uint64_t cuts = 0;
  for (uint64_t seed = first; seed < last && !HasFailure(); ++seed) {
    CrashPlan plan = {.seed = seed,
                      .trace = all.trace,
                      .rounds = all.rounds,
                      .ask_qemu = seed % kSeedsBetweenQemu == 0};
    CrashReport report = run_crashes(plan);
    cuts += report.cuts;
    EXPECT_TRUE(report.result.has_value())
        << report.result.error().message() << "\n  image: " << report.image
        << "\n  again: powercut_test --gtest_filter=PowerCut.* --rounds=" << all.rounds
        << " --seed=" << seed;
  }
  RecordProperty("crash_points", static_cast<int>(cuts));
  std::printf("%llu crash points\n", static_cast<unsigned long long>(cuts));
}

TEST(ProcessEnd, LosesNothingThatWasAcknowledged) {
  const Settings& all = settings();
  const uint64_t first = all.seed.value_or(0);
  const uint64_t last = all.seed ? first + 1 : all.runs.value_or(kDefaultRuns);
  uint64_t ends = 0;
  for (uint64_t seed = first; seed < last && !HasFailure(); ++seed) {
    const CrashPlan plan = {.seed = seed,
                            .trace = all.trace,
                            .rounds = all.rounds,
                            .ask_qemu = seed % kSeedsBetweenQemu == 0,
                            .process_ends = true};
    const CrashReport report = run_crashes(plan);
    ends += report.cuts;
    EXPECT_TRUE(report.result.has_value())
        << report.result.error().message() << "\n  image: " << report.image
        << "\n  again: powercut_test --gtest_filter=ProcessEnd.* --rounds=" << all.rounds
        << " --seed=" << seed;
  }
  RecordProperty("ends", static_cast<int>(ends));
  std::printf("%llu ends of a process\n", static_cast<unsigned long long>(ends));
}

// Points after which the order of writes matters, and how often each is aimed at.
using block::DebugEvent;
constexpr DebugEvent kAimedPoints[] = {
    DebugEvent::kRefblockAllocWrite,
    DebugEvent::kRefblockAllocWriteTable,
    DebugEvent::kRefblockAllocSwitchTable,
    DebugEvent::kRefblockUpdate,
    DebugEvent::kReftableUpdate,
    DebugEvent::kL2AllocWrite,
    DebugEvent::kL2Update,
    DebugEvent::kL1Update,
    DebugEvent::kL1GrowWriteTable,
    DebugEvent::kL1GrowActivateTable,
    DebugEvent::kL1ShrinkWriteTable,
    DebugEvent::kClusterFree,
};

constexpr std::pair<Moment, std::string_view> kAimedMoments[] = {
    {Moment::kResize, "resize"},   {Moment::kClose, "close"}, {Moment::kCompaction, "compaction"},
    {Moment::kRewrite, "rewrite"}, {Moment::kSlots, "slots"}, {Moment::kVmState, "vm_state"},
};

// Where much is drawn before the point comes, more runs are needed; deriving keys takes long.
unsigned aimed_share(const CrashPlan& plan) {
  if (happens_once(plan)) return 16;
  switch (plan.moment) {
    case Moment::kClose: return 6;
    case Moment::kCompaction:
    case Moment::kRewrite: return 3;
    case Moment::kNone:
    case Moment::kResize:
    case Moment::kVmState:
    case Moment::kSlots: break;
  }
  return 1;
}

void run_aimed(CrashPlan plan, std::string_view point, uint64_t& cuts) {
  const Settings& all = settings();
  const uint64_t first = all.seed.value_or(0);
  const uint64_t usual = kDefaultAimedRuns * aimed_share(plan);
  const uint64_t last = all.seed ? first + 1 : all.runs.value_or(usual);
  uint64_t hits = 0;
  for (uint64_t seed = first; seed < last && !testing::Test::HasFailure(); ++seed) {
    plan.seed = seed;
    plan.trace = all.trace;
    plan.rounds = happens_once(plan) ? 1 : all.rounds;
    CrashReport report = run_crashes(plan);
    hits += report.hits;
    EXPECT_TRUE(report.result.has_value())
        << report.result.error().message() << "\n  image: " << report.image
        << "\n  again: powercut_test --gtest_filter=PowerCut.HoldsWhereItIsAimed --point=" << point
        << " --rounds=" << plan.rounds << " --seed=" << seed;
  }
  std::printf("%6llu cuts at %s\n", static_cast<unsigned long long>(hits),
              std::string(point).c_str());
  EXPECT_TRUE(hits > 0 || all.seed) << "nothing ever passes " << point;
  cuts += hits;
}

TEST(PowerCut, HoldsWhereItIsAimed) {
  uint64_t cuts = 0;
  const auto names = block::debug_event_names();
  for (DebugEvent point : kAimedPoints) {
    const std::string_view name = names[static_cast<size_t>(point)];
    if (settings().point.empty() || settings().point == name) run_aimed({.at = point}, name, cuts);
  }
  for (const auto& [moment, name] : kAimedMoments) {
    if (settings().point.empty() || settings().point == name)
      run_aimed({.moment = moment}, name, cuts);
  }
  RecordProperty("crash_points", static_cast<int>(cuts));
}

void run_faults(Fault fault, const char* test) {
  const Settings& all = settings();
  uint64_t first = all.seed.value_or(0);
  uint64_t last = all.seed ? first + 1 : all.runs.value_or(kDefaultFaultRuns);
  uint64_t faults = 0;
  for (uint64_t seed = first; seed < last; ++seed) {
    bool met = true;
    for (uint64_t at = all.number.value_or(1); met && !testing::Test::HasFailure(); ++at) {
      FaultReport report =
          run_fault({.seed = seed, .trace = all.trace, .fault = fault, .number = at});
      met = report.met;
      faults += met;
      EXPECT_TRUE(report.result.has_value())
          << report.result.error().message() << "\n  image: " << report.image
          << "\n  again: powercut_test --gtest_filter=Fault." << test << " --seed=" << seed
          << " --number=" << at;
      if (all.number) break;
    }
  }
  std::printf("%llu faults\n", static_cast<unsigned long long>(faults));
}

TEST(Fault, OneIoErrorNeverCorrupts) { run_faults(Fault::kIoError, "OneIoErrorNeverCorrupts"); }
TEST(Fault, AFullDiskNeverCorruptsAndWorkGoesOn) {
  run_faults(Fault::kNoSpace, "AFullDiskNeverCorruptsAndWorkGoesOn");
}

bool take_option(std::string_view argument) {
  if (argument == "--trace") return settings().trace = true;
  size_t equals = argument.find('=');
  if (equals == std::string_view::npos || !argument.starts_with("--")) return false;
  std::string_view name = argument.substr(2, equals - 2);
  if (name == "point") {
    settings().point = argument.substr(equals + 1);
    return true;
  }
  uint64_t number = std::strtoull(std::string(argument.substr(equals + 1)).c_str(), nullptr, 0);
  if (name == "seed") {
    settings().seed = number;
  } else if (name == "runs") {
    settings().runs = number;
  } else if (name == "rounds") {
    settings().rounds = static_cast<unsigned>(number);
  } else if (name == "number") {
    settings().number = number;
  } else {
    return false;
  }
  return true;
}

}  // namespace
}  // namespace platter::powercut

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i < argc; ++i) {
    if (!platter::powercut::take_option(argv[i])) {
      std::fprintf(stderr, "powercut_test: unknown option '%s'\n", argv[i]);
      return 2;
    }
  }
  return RUN_ALL_TESTS();
}
