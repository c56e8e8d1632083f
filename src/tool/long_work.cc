#include "tool/long_work.h"

namespace platter::tool {

LongWork::LongWork(Session& session, const Invocation& invocation, double step_percent)
    : session_(session),
      invocation_(invocation),
      progress_(invocation.console, choose_progress_style(invocation), step_percent) {
  session_.interrupts().set_progress_handler([this] { progress_.report(); });
}

LongWork::~LongWork() {
  session_.interrupts().set_handler({});
  session_.interrupts().set_progress_handler({});
}

void LongWork::cancel_on_interrupt() {
  session_.interrupts().set_handler([this] { interrupted_.cancel(); });
}

std::function<void(uint64_t done, uint64_t total)> LongWork::progress_sink() {
  return [this](uint64_t done, uint64_t total) { progress_.update(done, total); };
}

int LongWork::finish(const Result<void>& done, std::string_view what_holds) {
  if (done) progress_.complete();
  progress_.finish();
  if (done) return 0;
  if (!is_interrupted()) return invocation_.fail(done.error());
  return invocation_.fail("Interrupted: " + std::string(what_holds));
}

}  // namespace platter::tool
