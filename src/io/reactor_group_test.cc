#include "io/reactor_group.h"

#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "io/file_io.h"
#include "io/sync.h"

namespace platter::io {
namespace {

// From here on this process is refused io_uring, as containers do it.
bool refuse_io_uring() {
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  sock_fprog program{.len = std::size(filter), .filter = filter};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

Task<Result<void>> read_something(File& file) {
  uint8_t bytes[16];
  co_return co_await read_full(file, 0, {bytes, sizeof bytes});
}

// Runs in a child process; the exit status says what went wrong.
int start_where_refused() {
  if (!refuse_io_uring()) return 77;
  std::vector<std::string> lines;
  base::Log log([&](base::LogLevel, std::string_view line) { lines.emplace_back(line); });
  auto group = ReactorGroup::start({.reactors = 3, .log = &log});
  if (!group) return 1;
  if (std::strcmp((*group)->engine_name(), "threads") != 0) return 2;
  if (lines.size() != 1 || lines[0].find("io_uring") == std::string::npos) return 3;
  auto file = system_files().open("/proc/self/exe", {});
  if (!file) return 4;
  if (!run_blocking((*group)->at(2), read_something(**file))) return 5;
  auto insisting = ReactorGroup::start({.engine = EngineKind::kUring});
  if (insisting || insisting.error().code() != EPERM) return 6;
  return 0;
}

TEST(ReactorGroup, ThreadsTakeOverWhereIoUringIsRefused) {
  pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) _exit(start_where_refused());
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "no seccomp here";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(ReactorGroup, StartsAndStopsManyTimes) {
  for (int i = 0; i < 30; ++i) {
    auto group = ReactorGroup::start({.reactors = 4});
    ASSERT_TRUE(group);
    EXPECT_EQ((*group)->size(), 4u);
  }
}

Task<uint64_t> draw() { co_return Reactor::current()->random(); }

TEST(ReactorGroup, ASeedDecidesWhatReactorsDraw) {
  std::vector<uint64_t> drawn;
  for (int i = 0; i < 2; ++i) {
    auto group = ReactorGroup::start({.reactors = 2, .random_seed = 5});
    ASSERT_TRUE(group);
    drawn.push_back(run_blocking((*group)->at(0), draw()));
    drawn.push_back(run_blocking((*group)->at(1), draw()));
  }
  EXPECT_EQ(drawn[0], drawn[2]);
  EXPECT_EQ(drawn[1], drawn[3]);
  EXPECT_NE(drawn[0], drawn[1]);
}

// Many jobs at once: more than the pool may have threads.
Task<int> slow_square(int value) {
  co_return co_await Reactor::current()->call([value] { return value * value; });
}
Task<int> sum_of_squares(int count) {
  std::vector<Task<int>> tasks;
  for (int i = 0; i < count; ++i) tasks.push_back(slow_square(i));
  int sum = 0;
  for (int square : co_await when_all(std::move(tasks))) sum += square;
  co_return sum;
}

TEST(ReactorGroup, AFewWorkersDoManyJobs) {
  auto group = ReactorGroup::start({.reactors = 1, .max_workers = 3});
  ASSERT_TRUE(group);
  EXPECT_EQ(run_blocking((*group)->at(0), sum_of_squares(500)), 499 * 500 * 999 / 6);
}

}  // namespace
}  // namespace platter::io
