// Monitor: a character device with sessions on it, one client after the other.
#pragma once

#include <string>

#include "io/descriptor.h"
#include "io/event.h"
#include "io/task.h"
#include "monitor/chardevs.h"
#include "monitor/control.h"

namespace platter::monitor {

// What tasks of one reactor wake one of their number with. What is raised while nobody waits is
// seen by the next who does.
class Bell {
 public:
  void ring() { event_.set(); }
  io::Task<void> wait() {
    co_await event_;
    event_.reset();
  }

 private:
  io::Event event_;
};

// Lives on one reactor. Its task (serve) ends when stop() has been called, or when there is nobody
// left to hear from.
class Monitor {
 public:
  // `chardev` was taken for it, and outlives it.
  Monitor(Control& control, Chardev& chardev, bool pretty)
      : control_(control), chardev_(chardev), pretty_(pretty), accepting_(chardev.listener.get()) {}
  Monitor(const Monitor&) = delete;
  Monitor& operator=(const Monitor&) = delete;

  io::Task<void> serve();
  // Answers what has been asked for, as far as the client takes it without delay, and hangs up.
  void stop();

 private:
  class Conversation;
  io::Task<Result<io::Descriptor>> next_client();
  io::Task<void> talk(int input, int output);

  Control& control_;
  Chardev& chardev_;
  const bool pretty_;
  bool stopped_ = false;
  io::DescriptorWait accepting_;
  Conversation* conversation_ = nullptr;
};

}  // namespace platter::monitor
