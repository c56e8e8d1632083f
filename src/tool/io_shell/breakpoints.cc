// break, remove_break, resume, wait_break: requests that stop on their way through a debugging
// filter.
#include <cerrno>
#include <cstring>

#include "fmt/format.h"
#include "tool/io_shell/shell.h"

namespace platter::tool::io_shell {

extern const IoCommand kBreak, kRemoveBreak, kResume, kWaitBreak;

namespace {

std::string unsupported() { return Error::from_errno(ENOTSUP).message(); }

bool run_break(Shell& shell, const std::vector<std::string>&) {
  return shell.fail_out("Could not set breakpoint: " + unsupported());
}

bool run_remove_break(Shell& shell, const std::vector<std::string>& words) {
  return shell.fail_out(fmt::format("Could not remove breakpoint {}: {}", words[1], unsupported()));
}

bool run_resume(Shell& shell, const std::vector<std::string>&) {
  return shell.fail_out("Could not resume request: " + unsupported());
}

bool run_wait_break(Shell& shell, const std::vector<std::string>&) {
  return shell.fail_out("Could not wait for request: " + unsupported());
}

}  // namespace

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
