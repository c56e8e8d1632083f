#include "inspect/sandbox.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <functional>

namespace platter::inspect {
namespace {

constexpr int kEntered = 7;

// How a process ends that enters the sandbox with the two ends of a pipe and then does `what`: its
// wait status. It leaves by kEntered if nothing stopped it.
int end_of(const std::function<void(int reading, int writing)>& what) {
  int ends[2];
  EXPECT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    if (!enter_sandbox(ends[0], ends[1], {})) _exit(1);
    what(ends[0], ends[1]);
    _exit(kEntered);
  }
  close(ends[0]);
  close(ends[1]);
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return status;
}

bool is_killed(const std::function<void(int, int)>& what) {
  const int status = end_of(what);
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
}

bool is_let_through(const std::function<void(int, int)>& what) {
  const int status = end_of(what);
  return WIFEXITED(status) && WEXITSTATUS(status) == kEntered;
}

TEST(Sandbox, ReadingWritingAndMemoryAreLetThrough) {
  EXPECT_TRUE(is_let_through([](int reading, int writing) {
    char byte = 'x';
    if (write(writing, &byte, 1) != 1) _exit(1);
    // A pipe has no positions; that it is asked at all is the point.
    if (pread(reading, &byte, 1, 0) != -1) _exit(1);
    volatile char* memory = static_cast<char*>(malloc(size_t{8} << 20));
    if (memory == nullptr) _exit(1);
    memory[0] = 1;
    free(const_cast<char*>(memory));
  }));
}

TEST(Sandbox, EverythingElseKills) {
  EXPECT_TRUE(is_killed([](int, int) { open("/dev/null", O_RDONLY | O_CLOEXEC); }));
  EXPECT_TRUE(is_killed([](int, int) { socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); }));
  EXPECT_TRUE(is_killed([](int, int) { fork(); }));
  EXPECT_TRUE(is_killed([](int, int) { execl("/bin/true", "true", nullptr); }));
  EXPECT_TRUE(is_killed([](int reading, int) { dup(reading); }));
  EXPECT_TRUE(is_killed([](int, int) { kill(getppid(), SIGTERM); }));
  EXPECT_TRUE(is_killed([](int, int) { unlink("/nowhere"); }));
  EXPECT_TRUE(is_killed([](int, int) { tgkill(getppid(), getppid(), SIGTERM); }));
}

TEST(Sandbox, OtherDescriptorsAreOutOfReach) {
  EXPECT_TRUE(is_killed([](int, int writing) {
    char byte;
    (void)!pread(writing, &byte, 1, 0);
  }));
  // A sanitizer writes reports.
  if (kSanitized) return;
  EXPECT_TRUE(is_killed([](int reading, int) {
    const char byte = 'x';
    (void)!write(reading, &byte, 1);
  }));
  EXPECT_TRUE(is_killed([](int, int) { (void)!write(STDOUT_FILENO, "x", 1); }));
}

TEST(Sandbox, MemoryIsNeverExecutable) {
  EXPECT_TRUE(is_killed([](int, int) {
    mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  }));
}

TEST(Sandbox, EndlessWorkEnds) {
  const int status = end_of([](int, int) {
    for (volatile uint64_t i = 0;; i = i + 1) {
    }
  });
  EXPECT_TRUE(WIFSIGNALED(status));
}

}  // namespace
}  // namespace platter::inspect
