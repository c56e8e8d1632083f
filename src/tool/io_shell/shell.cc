#include "tool/io_shell/shell.h"

#include <cerrno>

#include "base/assert.h"
#include "base/try.h"
#include "fmt/format.h"
#include "tool/io_shell/words.h"

namespace platter::tool::io_shell {
namespace {

std::string expected_arguments(const IoCommand& command) {
  if (command.max_arguments < 0) return fmt::format("at least {}", command.min_arguments);
  if (command.max_arguments == command.min_arguments)
    return fmt::format("{}", command.min_arguments);
  return fmt::format("between {} and {}", command.min_arguments, command.max_arguments);
}

}  // namespace

Shell::~Shell() { PLATTER_ASSERT(image_ == nullptr); }

void Shell::run_line(std::string_view line) {
  const auto words = split_words(line);
  if (words.empty()) return;
  const auto* command = find_io_command(words[0]);
  const bool done = command != nullptr
                        ? run_command(*command, words)
                        : fail_err(fmt::format("command \"{}\" not found", words[0]));
  if (!done) failed_ = true;
}

bool Shell::run_command(const IoCommand& command, const std::vector<std::string>& words) {
  if (command.needs_image && image_ == nullptr) return fail_err("no file open, try 'help open'");
  const int count = static_cast<int>(words.size()) - 1;
  if (count < command.min_arguments ||
      (command.max_arguments >= 0 && count > command.max_arguments)) {
    return fail_err(fmt::format("bad argument count {} to {}, expected {} arguments", count,
                                words[0], expected_arguments(command)));
  }
  return check_access(command) && command.run(*this, words);
}

bool Shell::check_access(const IoCommand& command) {
  if (command.access == Access::kRead || image_->settings().writable) return true;
  return fail_error(Error(EPERM, "Block node is read-only"));
}

// ---- The image

bool Shell::open(const OpenSettings& settings) {
  if (image_ != nullptr) return fail_error(Error(EBUSY, "file open already, try 'help close'"));
  auto opened = wait(OpenImage::open(session_, settings));
  if (!opened) {
    std::string what = "can't open";
    if (settings.named) what += fmt::format(" device {}", settings.name);
    return fail_error(std::move(opened).error().with_context(what));
  }
  image_ = std::move(*opened);
  return true;
}

bool Shell::close() {
  if (image_ != nullptr) release_breakpoints(image_->node());
  wait_for_started();
  if (image_ == nullptr) return true;
  auto closed = wait(image_->close());
  image_.reset();
  return closed ? true : fail_error(closed.error());
}

bool Shell::reopen(OpenSettings settings) {
  wait_for_started();
  const OpenSettings before = image_->settings();
  auto closed = wait(image_->close());
  image_.reset();
  if (!closed) return fail_error(closed.error());
  auto opened = wait(OpenImage::open(session_, std::move(settings)));
  if (opened) {
    image_ = std::move(*opened);
    return true;
  }
  fail_error(opened.error());
  // As it was. If not even that is possible any more, no image is open.
  return open(before) && false;
}

// ---- Running requests

void Shell::start(io::Task<void> task) {
  auto& reactors = session_.reactors();
  started_->spawn(reactors.at(turn_++ % reactors.size()), std::move(task));
}

void Shell::wait_for_started() {
  wait(started_->close());
  started_ = std::make_unique<io::Gate>();
}

// ---- Speaking

void Shell::print(std::string_view text) { session_.console().print(text); }

bool Shell::fail_out(std::string_view line) {
  print(fmt::format("{}\n", line));
  return false;
}

bool Shell::fail_err(std::string_view line) {
  session_.console().note(fmt::format("{}\n", line));
  return false;
}

bool Shell::fail_error(const Error& failure) {
  session_.console().error(failure);
  return false;
}

bool Shell::fail_usage(const IoCommand& command) {
  print(usage_line(command));
  return false;
}

bool Shell::fail_words(const IoCommand& command, const Error& failure) {
  fail_err(failure.message());
  return fail_usage(command);
}

}  // namespace platter::tool::io_shell
