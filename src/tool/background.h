// Going into the background: the process that was started ends when the daemon is ready, or has
// failed to be, and says which by its exit status.
#pragma once

#include "io/descriptor.h"
#include "platter/error.h"

namespace platter::tool {

class Background {
 public:
  // Before any thread is started. Returns in the daemon; the other process waits, and ends. Where
  // the daemon ends without a word to it, it has failed.
  Result<void> enter();
  // In the daemon, where enter() was called: it is ready. It lets go of the terminal and of the
  // directory that it was started in.
  Result<void> ready();

 private:
  io::Descriptor to_starter_;
};

}  // namespace platter::tool
