#include "workload/outside.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>

#include "base/assert.h"
#include "base/try.h"

extern char** environ;

namespace platter::workload {

namespace {

std::filesystem::path parent_directory() {
  if (const char* chosen = std::getenv("PLATTER_TEST_DIR")) return chosen;
  if (access("/dev/shm", W_OK) == 0) return "/dev/shm";
  return std::filesystem::temp_directory_path();
}

}  // namespace

ScratchDirectory::ScratchDirectory() : support::ScratchDirectory(parent_directory()) {}

ProgramResult run_program(const std::vector<std::string>& arguments) {
  int pipe_ends[2];
  PLATTER_ASSERT(pipe2(pipe_ends, O_CLOEXEC) == 0);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, pipe_ends[1], 1);
  posix_spawn_file_actions_adddup2(&actions, pipe_ends[1], 2);
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  pid_t child = -1;
  int status = posix_spawnp(&child, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(pipe_ends[1]);
  ProgramResult result{127, {}};
  if (status == 0) {
    char buffer[4096];
    ssize_t got;
    while ((got = read(pipe_ends[0], buffer, sizeof buffer)) > 0 || (got < 0 && errno == EINTR)) {
      if (got > 0) result.output.append(buffer, static_cast<size_t>(got));
    }
    int wait_status = 0;
    while (waitpid(child, &wait_status, 0) < 0 && errno == EINTR) {
    }
    result.exit_code =
        WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 128 + WTERMSIG(wait_status);
  }
  close(pipe_ends[0]);
  return result;
}

bool have_program(const std::string& name) {
  return run_program({name, "--version"}).exit_code == 0;
}

Result<void> write_file(const std::string& path, std::span<const uint8_t> bytes) {
  std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "wbe"), std::fclose);
  if (!file) return std::unexpected(Error::from_errno(errno, path));
  if (std::fwrite(bytes.data(), 1, bytes.size(), file.get()) != bytes.size() ||
      std::fflush(file.get()) != 0) {
    return std::unexpected(Error::from_errno(errno, path));
  }
  return {};
}

}  // namespace platter::workload
