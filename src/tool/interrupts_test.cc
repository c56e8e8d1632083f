#include "tool/interrupts.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <semaphore>

namespace platter::tool {
namespace {

TEST(InterruptsTest, AHandlerIsCalledInsteadOfDying) {
  Interrupts interrupts;
  std::binary_semaphore called{0};
  interrupts.set_handler([&] { called.release(); });
  kill(getpid(), SIGINT);
  called.acquire();
  EXPECT_EQ(interrupts.caught(), SIGINT);
}

TEST(InterruptsTest, ProgressMayBeAskedForAgainAndAgain) {
  Interrupts interrupts;
  std::counting_semaphore<> called{0};
  interrupts.set_progress_handler([&] { called.release(); });
  for (int i = 0; i < 3; ++i) {
    kill(getpid(), SIGUSR1);
    called.acquire();
  }
  EXPECT_EQ(interrupts.caught(), 0);
}

TEST(InterruptsDeathTest, WithoutAHandlerTheSignalHasItsEffect) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        Interrupts interrupts;
        kill(getpid(), SIGTERM);
        for (;;) pause();
      },
      testing::KilledBySignal(SIGTERM), "");
}

TEST(InterruptsDeathTest, ASecondSignalEndsTheProgram) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        Interrupts interrupts;
        std::binary_semaphore called{0};
        interrupts.set_handler([&] { called.release(); });
        kill(getpid(), SIGINT);
        called.acquire();
        kill(getpid(), SIGTERM);
        for (;;) pause();
      },
      testing::KilledBySignal(SIGTERM), "");
}

}  // namespace
}  // namespace platter::tool
