// Interrupts: signals as calls on a thread of their own.
//
// SIGINT, SIGTERM and SIGHUP end the program at once unless a handler is set. It is called once;
// from then on SIGINT, a person's second ^C, ends the program after all, and the others do nothing
// more: those who send them often send them twice (timeout(1), a terminal that goes). SIGUSR1 asks
// for progress, SIGUSR2 to go on after a stop; they end the program, too, where no handler is set.
// While an object lives these signals are blocked in the thread that made it and in the threads
// that it starts later, so it is made before any other thread.
#pragma once

#include <atomic>
#include <csignal>
#include <functional>
#include <mutex>
#include <thread>

namespace platter::tool {

class Interrupts {
 public:
  Interrupts();
  ~Interrupts();
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;

  // Called on the watching thread; empty: the signal has its usual effect. When set() has returned,
  // the old handler is not running and will not be called.
  void set_handler(std::function<void()> handler);
  void set_progress_handler(std::function<void()> handler);
  void set_go_on_handler(std::function<void()> handler);

  // The signal that asked to stop, or 0.
  int caught() const { return caught_; }

 private:
  void watch();
  void handle(int signal);

  sigset_t watched_;
  sigset_t before_;
  int stop_event_ = -1;
  std::mutex mutex_;  // held while a handler runs
  std::function<void()> handler_;
  std::function<void()> progress_handler_;
  std::function<void()> go_on_handler_;
  std::atomic<int> caught_ = 0;
  std::thread thread_;
};

// Ends this process as `signal` does by default.
[[noreturn]] void die_of(int signal);

}  // namespace platter::tool
