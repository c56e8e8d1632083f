// Shell: reads commands and runs them on the image that is open.
//
// Commands run on the thread that made the shell, one after the other; their requests run on the
// session's reactors. Requests that were started without waiting (aio_read, aio_write) run beside
// the commands that follow and print when they end; close() and aio_flush wait for them.
//
// Output of commands goes to standard output a whole report at a time; a mistake in a command is
// told on either stream, as scripts that know qemu-io expect it.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "io/gate.h"
#include "tool/io_shell/io_command.h"
#include "tool/io_shell/open_image.h"
#include "tool/session.h"

namespace platter::tool::io_shell {

class Shell {
 public:
  struct Options {
    bool misalign = false;           // memory for requests starts 16 bytes into a page
    bool names_are_options = false;  // --image-opts: also for `open`
  };
  Shell(Session& session, Options options) : session_(session), options_(options) {}
  ~Shell();  // no image is open (asserted)
  Shell(const Shell&) = delete;
  Shell& operator=(const Shell&) = delete;

  Session& session() { return session_; }
  const Options& options() const { return options_; }

  // One line. A failure is remembered for the exit status.
  void run_line(std::string_view line);
  void quit() { quit_ = true; }
  bool quitting() const { return quit_; }
  bool failed() const { return failed_; }

  // ---- The image
  OpenImage* image() { return image_.get(); }
  // Commands run where an image is open ask for it without a check.
  block::Backend& backend() { return image_->backend(); }
  // The error has been printed.
  bool open(const OpenSettings& settings);
  bool close();
  bool reopen(OpenSettings settings);

  // ---- Running requests
  template <typename T>
  T wait(io::Task<T> task) {
    return io::run_blocking(session_.reactors().at(0), std::move(task));
  }
  // On one of the reactors, beside what follows.
  void start(io::Task<void> task);
  void wait_for_started();
  uint64_t started() const { return started_->inside(); }

  // ---- Speaking
  void print(std::string_view text);  // any thread
  // A line on standard output or standard error; false, for a command to return.
  bool fail_out(std::string_view line);
  bool fail_err(std::string_view line);
  // With the program's name before it.
  bool fail_error(const Error& failure);
  bool fail_usage(const IoCommand& command);
  // What Words::parse found wrong: the line, and the usage.
  bool fail_words(const IoCommand& command, const Error& failure);

 private:
  bool run_command(const IoCommand& command, const std::vector<std::string>& words);
  bool check_access(const IoCommand& command);

  Session& session_;
  const Options options_;
  std::unique_ptr<OpenImage> image_;
  std::unique_ptr<io::Gate> started_ = std::make_unique<io::Gate>();
  unsigned turn_ = 0;
  bool quit_ = false;
  bool failed_ = false;
};

// Lets go every request that a breakpoint below `top` holds.
void release_breakpoints(block::Node& top);

}  // namespace platter::tool::io_shell
