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

// Acts on the points below the image, and says so if that fails.
template <typename Act>
bool with_points(Shell& shell, std::string_view failed, Act act) {
  auto* points = find_points(shell.image()->node());
  Result<void> done = fail_errno(ENOTSUP);
  if (points != nullptr) done = act(*points);
  return done ? true : shell.fail_out(fmt::format("{}: {}", failed, done.error().message()));
}

Result<void> add_breakpoint(Shell& shell, block::DebugPoints& points, const std::string& name,
                            const std::string& tag) {
  const auto event = block::find_debug_event(name);
  if (!event) return fail_errno(ENOENT);
  points.set_listener([&shell](block::DebugPoints::Change change) {
    shell.print(fmt::format("blkdebug: {} request '{}'\n", change.held ? "Suspended" : "Resuming",
                            change.tag));
  });
  return points.add_breakpoint(*event, tag);
}

bool run_break(Shell& shell, const std::vector<std::string>& words) {
  return with_points(shell, "Could not set breakpoint", [&](block::DebugPoints& points) {
    return add_breakpoint(shell, points, words[1], words[2]);
  });
}

bool run_remove_break(Shell& shell, const std::vector<std::string>& words) {
  return with_points(
      shell, "Could not remove breakpoint " + words[1],
      [&](block::DebugPoints& points) { return points.remove_breakpoint(words[1]); });
}

bool run_resume(Shell& shell, const std::vector<std::string>& words) {
  return with_points(shell, "Could not resume request",
                     [&](block::DebugPoints& points) { return points.resume(words[1]); });
}

// Until a request is held at the tag, or nobody else can still arrive there.
Result<void> wait_until_held(const Shell& shell, block::DebugPoints& points,
                             const std::string& tag) {
  constexpr auto kLookAgain = std::chrono::milliseconds(1);
  while (!points.is_held(tag)) {
    if (shell.started() == 0)
      return fail(EINVAL, fmt::format("none is under way to stop at '{}'", tag));
    std::this_thread::sleep_for(kLookAgain);
  }
  return {};
}

bool run_wait_break(Shell& shell, const std::vector<std::string>& words) {
  return with_points(shell, "Could not wait for request", [&](block::DebugPoints& points) {
    return wait_until_held(shell, points, words[1]);
  });
}

// A command whose one argument is the tag of a breakpoint.
constexpr IoCommand tag_command(std::string_view name, std::string_view summary,
                                bool (*run)(Shell&, const std::vector<std::string>&)) {
  return {.name = name,
          .min_arguments = 1,
          .max_arguments = 1,
          .arguments = "tag",
          .summary = summary,
          .run = run};
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

const IoCommand kRemoveBreak =
    tag_command("remove_break", "remove a breakpoint by tag", run_remove_break);
const IoCommand kResume = tag_command("resume", "resumes the request tagged as tag", run_resume);
const IoCommand kWaitBreak =
    tag_command("wait_break", "waits for the suspension of a request", run_wait_break);

}  // namespace platter::tool::io_shell
