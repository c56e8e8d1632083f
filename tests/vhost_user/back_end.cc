#include "vhost_user/back_end.h"

#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <fstream>
#include <string_view>
#include <thread>
#include <utility>

#include "base/try.h"

namespace platter::front_end {
namespace {

constexpr std::chrono::seconds kStartLimit{60};
constexpr std::chrono::seconds kStopLimit{30};
constexpr std::chrono::milliseconds kLookEvery{2};

// As the kernel's table has it: connecting to find out would be the one connection it waits for.
bool listens(const std::string& socket) {
  constexpr std::string_view kListening = "00010000";
  std::ifstream table("/proc/net/unix");
  std::string number;
  std::string users;
  std::string protocol;
  std::string flags;
  std::string rest;
  while (table >> number >> users >> protocol >> flags && std::getline(table, rest)) {
    if (flags == kListening && rest.ends_with(" " + socket)) return true;
  }
  return false;
}

// One that is killed leaves its state file: beside the socket, if its user has not said where.
void add_arguments(std::vector<std::string>& command, const BackEndOptions& options) {
  command.insert(command.end(), options.arguments.begin(), options.arguments.end());
  if (std::ranges::find(options.arguments, "--state") == options.arguments.end())
    command.insert(command.end(), {"--state", options.socket + ".states"});
}

int status_of(int waited) { return WIFEXITED(waited) ? WEXITSTATUS(waited) : -WTERMSIG(waited); }

}  // namespace

Result<std::vector<std::string>> back_end_command(const std::string& name,
                                                  const BackEndOptions& options) {
  if (name == "qemu-storage-daemon") {
    // Without an iothread: with one it hangs, now and then, when it is told to stop just after a
    // front-end has left.
    std::vector<std::string> command = {name, "--object", "iothread,id=thread", "--blockdev"};
    if (options.node.empty()) {
      command.push_back(
          fmt::format("driver=file,node-name=file,filename={},discard=unmap", options.image));
      command.emplace_back("--blockdev");
      command.push_back(
          fmt::format("driver={},node-name=disk,file=file,discard=unmap", options.format));
    } else {
      command.push_back(options.node + ",node-name=disk");
    }
    command.emplace_back("--export");
    command.push_back(
        fmt::format("type=vhost-user-blk,id=export,node-name=disk,writable=on,"
                    "addr.type=unix,addr.path={},num-queues={}",
                    options.socket, options.queues));
    return command;
  }
  if (name == "platter") {
    std::vector<std::string> command = {PLATTER_PROGRAM, "serve"};
    if (options.node.empty()) {
      command.insert(command.end(), {options.image, "-f", options.format});
    } else {
      command.insert(command.end(), {"--image-opts", options.node});
    }
    command.insert(command.end(), {"--vhost-user", options.socket, "--queues",
                                   std::to_string(options.queues), "-q"});
    add_arguments(command, options);
    return command;
  }
  if (name == "platter-daemon") {
    std::vector<std::string> command = {PLATTER_PROGRAM, "daemon"};
    add_arguments(command, options);
    return command;
  }
  return fail(EINVAL, fmt::format("There is no back-end '{}'", name));
}

Result<BackEnd> BackEnd::start(const std::string& name, const BackEndOptions& options) {
  PLATTER_ASSIGN(const std::vector<std::string> command, back_end_command(name, options));
  std::vector<char*> words;
  for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  // One that was killed leaves it there.
  ::unlink(options.socket.c_str());
  const pid_t process = ::fork();
  if (process < 0) return fail_errno(errno);
  if (process == 0) {
    // A test that is killed leaves nothing behind.
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (options.errors >= 0) ::dup2(options.errors, STDERR_FILENO);
    ::execvp(words[0], words.data());
    ::_exit(127);
  }
  BackEnd back_end(process);
  const auto limit = std::chrono::steady_clock::now() + kStartLimit;
  while (true) {
    if (listens(options.socket)) return back_end;
    if (!back_end.running()) return fail(EIO, fmt::format("{} ended before it listened", name));
    if (std::chrono::steady_clock::now() > limit)
      return fail(ETIMEDOUT, fmt::format("{} does not listen on '{}'", name, options.socket));
    std::this_thread::sleep_for(kLookEvery);
  }
}

BackEnd::BackEnd(BackEnd&& other) noexcept : process_(std::exchange(other.process_, -1)) {}

BackEnd::~BackEnd() { kill(); }

void BackEnd::kill() {
  if (process_ < 0) return;
  ::kill(process_, SIGKILL);
  ::waitpid(process_, nullptr, 0);
  process_ = -1;
}

int BackEnd::stop() {
  if (process_ < 0) return -ESRCH;
  ::kill(process_, SIGTERM);
  const auto limit = std::chrono::steady_clock::now() + kStopLimit;
  int waited = 0;
  while (::waitpid(process_, &waited, WNOHANG) == 0) {
    std::this_thread::sleep_for(kLookEvery);
    if (std::chrono::steady_clock::now() > limit) ::kill(process_, SIGKILL);
  }
  process_ = -1;
  return status_of(waited);
}

void BackEnd::signal(int number) {
  if (process_ >= 0) ::kill(process_, number);
}

bool BackEnd::running() {
  if (process_ < 0) return false;
  if (::waitpid(process_, nullptr, WNOHANG) != process_) return true;
  process_ = -1;
  return false;
}

}  // namespace platter::front_end
