// LongWork: the start and the end that commands have in common which may take long: progress for
// whoever asks for it, an interrupt that stops them where they can be stopped, and what is said of
// either.
#pragma once

#include <string_view>

#include "io/cancel.h"
#include "tool/command.h"
#include "tool/progress.h"
#include "tool/session.h"

namespace platter::tool {

class LongWork {
 public:
  // Progress is drawn as the invocation asks for it, and told when SIGUSR1 asks. `step_percent`: as
  // Progress has it.
  LongWork(Session& session, const Invocation& invocation, double step_percent);
  ~LongWork();
  LongWork(const LongWork&) = delete;
  LongWork& operator=(const LongWork&) = delete;

  // From now on an interrupt cancels: the work ends soon, and then the process, as of the signal.
  // Until then it ends the process at once.
  void cancel_on_interrupt();
  io::CancelToken token() { return interrupted_.token(); }
  bool is_interrupted() const { return interrupted_.is_cancelled(); }

  Progress& progress() { return progress_; }
  // As engines take it.
  std::function<void(uint64_t done, uint64_t total)> progress_sink();

  // The exit status. Ends progress, and prints the error or, where an interrupt was the reason,
  // "Interrupted: WHAT_HOLDS".
  int finish(const Result<void>& done, std::string_view what_holds);

 private:
  Session& session_;
  const Invocation& invocation_;
  Progress progress_;
  io::CancelSource interrupted_;
};

}  // namespace platter::tool
