// break, remove_break, resume, wait_break: requests that stop on their way through a debugging
// filter.
#include <cerrno>
#include <chrono>
#include <thread>

#include "base/try.h"
#include "fmt/format.h"
#include "tool/io_shell/shell.h"

namespace platter::tool::io_shell {

extern const IoCommand kBreak, kRemoveBreak, kResume, kWaitBreak;

namespace {

// Of the nearest debugging filter below, or null.
block::DebugPoints* find_points(block::Node& top) {
  for (block::Node* node = &top;; node = &node->primary()->node()) {
    if (auto* points = node->driver().debug_points()) return points;
    if (node->primary() == nullptr) return nullptr;
  }
}

Result<block::DebugPoints*> points_of(Shell& shell) {
  auto* points = find_points(shell.image()->node());
  if (points == nullptr) return fail_errno(ENOTSUP);
  return points;
}

Result<void> add_breakpoint(Shell& shell, const std::string& name, const std::string& tag) {
  PLATTER_ASSIGN(auto* points, points_of(shell));
  const auto event = block::find_debug_event(name);
  if (!event) return fail_errno(ENOENT);
  points->set_listener([&shell](block::DebugPoints::Change change) {
    shell.print(fmt::format("blkdebug: {} request '{}'\n", change.held ? "Suspended" : "Resuming",
                            change.tag));
  });
  return points->add_breakpoint(*event, tag);
}

bool run_break(Shell& shell, const std::vector<std::string>& words) {
  auto added = add_breakpoint(shell, words[1], words[2]);
  if (added) return true;
  return shell.fail_out("Could not set breakpoint: " + added.error().message());
}

bool run_remove_break(Shell& shell, const std::vector<std::string>& words) {
  auto points = points_of(shell);
  Result<void> removed =
      points ? (*points)->remove_breakpoint(words[1]) : std::unexpected(points.error());
  if (removed) return true;
  return shell.fail_out(
      fmt::format("Could not remove breakpoint {}: {}", words[1], removed.error().message()));
}

bool run_resume(Shell& shell, const std::vector<std::string>& words) {
  auto points = points_of(shell);
  Result<void> resumed = points ? (*points)->resume(words[1]) : std::unexpected(points.error());
  if (resumed) return true;
  return shell.fail_out("Could not resume request: " + resumed.error().message());
}

bool run_wait_break(Shell& shell, const std::vector<std::string>& words) {
  constexpr auto kLookAgain = std::chrono::milliseconds(1);
  auto points = points_of(shell);
  if (!points) return shell.fail_out("Could not wait for request: " + points.error().message());
  while (!(*points)->is_held(words[1])) {
    // Nobody else can still arrive there.
    if (shell.started() == 0) {
      return shell.fail_out(
          fmt::format("Could not wait for request: none is under way to stop at '{}'", words[1]));
    }
    std::this_thread::sleep_for(kLookAgain);
  }
  return true;
}

}  // namespace

void release_breakpoints(block::Node& top) {
  if (auto* points = find_points(top)) points->release_all();
}

const IoCommand kBreak = {
    .name = "break",
    .min_arguments = 2,
    .max_arguments = 2,
    .arguments = "event tag",
    .summary = "sets a breakpoint on event and tags the stopped request as tag",
    .run = run_break,
};

const IoCommand kRemoveBreak = {
    .name = "remove_break",
    .min_arguments = 1,
    .max_arguments = 1,
    .arguments = "tag",
    .summary = "remove a breakpoint by tag",
    .run = run_remove_break,
};

const IoCommand kResume = {
    .name = "resume",
    .min_arguments = 1,
    .max_arguments = 1,
    .arguments = "tag",
    .summary = "resumes the request tagged as tag",
    .run = run_resume,
};

const IoCommand kWaitBreak = {
    .name = "wait_break",
    .min_arguments = 1,
    .max_arguments = 1,
    .arguments = "tag",
    .summary = "waits for the suspension of a request",
    .run = run_wait_break,
};

}  // namespace platter::tool::io_shell
