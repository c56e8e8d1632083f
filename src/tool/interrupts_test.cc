#include "tool/interrupts.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <semaphore>

namespace platter::tool {
namespace {

bool is_pending(int signal) {
  sigset_t pending;
  sigpending(&pending);
  return sigismember(&pending, signal) == 1;
}

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

TEST(InterruptsDeathTest, ASecondInterruptEndsTheProgramAndNothingElseDoes) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        Interrupts interrupts;
        std::counting_semaphore<> called{0};
        interrupts.set_handler([&] { called.release(); });
        interrupts.set_progress_handler([&] { called.release(); });
        kill(getpid(), SIGTERM);
        called.acquire();
        interrupts.set_handler({});
        for (const int signal : {SIGTERM, SIGHUP}) {
          kill(getpid(), signal);
          while (is_pending(signal)) sched_yield();
          // When the next has been handled, so has this one.
          kill(getpid(), SIGUSR1);
          called.acquire();
        }
        kill(getpid(), SIGINT);
        for (;;) pause();
      },
      testing::KilledBySignal(SIGINT), "");
}

}  // namespace
}  // namespace platter::tool
