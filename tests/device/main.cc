// device_test [--seed=N] [--runs=N] [--steps=N] [gtest options]
//
// Without options: a fixed number of seeds. With --seed: that one alone, as a failure prints it.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

#include "device/run.h"

namespace platter::device_test {
namespace {

struct Settings {
  std::optional<uint64_t> seed;
  uint64_t runs = 100;
  unsigned steps = 60;
};

Settings& settings() {
  static Settings instance;
  return instance;
}

void run_seed(uint64_t seed) {
  const auto done = Run(seed).run(settings().steps);
  if (done) return;
  ADD_FAILURE() << done.error().message() << "\n  again: device_test --steps=" << settings().steps
                << " --seed=" << seed;
}

TEST(Device, DoesWhatTheModelDoes) {
  if (settings().seed) return run_seed(*settings().seed);
  for (uint64_t seed = 0; seed < settings().runs && !HasFailure(); ++seed) run_seed(seed);
}

bool take_option(std::string_view argument) {
  const size_t equals = argument.find('=');
  if (equals == std::string_view::npos) return false;
  const std::string_view name = argument.substr(0, equals);
  const uint64_t number =
      std::strtoull(std::string(argument.substr(equals + 1)).c_str(), nullptr, 0);
  if (name == "--seed") {
    settings().seed = number;
  } else if (name == "--runs") {
    settings().runs = number;
  } else if (name == "--steps") {
    settings().steps = static_cast<unsigned>(number);
  } else {
    return false;
  }
  return true;
}

}  // namespace
}  // namespace platter::device_test

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i < argc; ++i) {
    if (!platter::device_test::take_option(argv[i])) {
      std::fprintf(stderr, "device_test: unknown option '%s'\n", argv[i]);
      return 2;
    }
  }
  return RUN_ALL_TESTS();
}
