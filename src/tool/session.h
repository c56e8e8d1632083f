// Session: the runtime of one command: reactors, graph, open policy, interrupts.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "block/graph.h"
#include "block/registry.h"
#include "io/reactor_group.h"
#include "io/task.h"
#include "platter/open_policy.h"
#include "tool/command.h"
#include "tool/interrupts.h"

namespace platter::tool {

// How many reactors a command has, where its user does not say: one of its own, each of which
// takes a moment to start, or one for each processor that may help.
enum class Reactors { kOne, kOneAProcessor };

class Session {
 public:
  // Reads --engine, --reactors and --allow-backing. `state_directory`: of the graph.
  static Result<std::unique_ptr<Session>> start(const Invocation& invocation, Reactors reactors,
                                                std::string state_directory = {});
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  Console& console() { return console_; }
  block::Graph& graph() { return *graph_; }
  const block::DriverRegistry& registry() const { return registry_; }
  io::ReactorGroup& reactors() { return *reactors_; }
  std::vector<io::Reactor*> all_reactors();
  Interrupts& interrupts() { return interrupts_; }
  const OpenPolicy& policy() const { return policy_; }
  const base::Log& log() const { return log_; }

 private:
  explicit Session(const Invocation& invocation);

  Console& console_;
  Interrupts interrupts_;  // before the reactors' threads, that they inherit the signal mask
  base::Log log_;
  OpenPolicy policy_;
  block::DriverRegistry registry_;
  std::unique_ptr<io::ReactorGroup> reactors_;
  std::unique_ptr<block::Graph> graph_;
};

// What --state says: where the state of images is kept that has to outlive this process, as an
// absolute path. "none" is nowhere (empty); nothing said is this user's place in shared memory, or
// nowhere under the compat name.
Result<std::string> state_directory(const Invocation& invocation);

// Lets this process have as many open files as it may: for who serves many images.
void raise_file_limit();

// Starts a session, runs the task that `work` makes on its first reactor, and returns the task's
// exit status. Where a signal was caught the process then ends as of that signal.
int run_session(Invocation& invocation, const std::function<io::Task<int>(Session&)>& work,
                Reactors reactors = Reactors::kOne);

// While it lives, an interrupt removes the file that is being made, says so, and ends the program:
// for work that cannot be stopped halfway in any better way. A file that was there before, and that
// nobody has begun to overwrite, stays.
class HalfMadeFile {
 public:
  // Before the work begins.
  HalfMadeFile(Session& session, std::string path);
  ~HalfMadeFile();
  HalfMadeFile(const HalfMadeFile&) = delete;
  HalfMadeFile& operator=(const HalfMadeFile&) = delete;

  // The work has failed: removes the file, if it is a regular one; whether it did. A failure to do
  // so is reported.
  bool remove();

 private:
  // What tells a file from what it was before: device, inode, size, times.
  using Identity = std::array<int64_t, 7>;
  static std::optional<Identity> identify(const std::string& path);
  bool is_begun() const;

  Session& session_;
  const std::string path_;
  const std::optional<Identity> before_;  // nothing: it was not there
};

}  // namespace platter::tool
