#include "tool/interrupts.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cstdlib>

#include "base/assert.h"

namespace platter::tool {

void die_of(int signal) {
  std::signal(signal, SIG_DFL);
  sigset_t only;
  sigemptyset(&only);
  sigaddset(&only, signal);
  pthread_sigmask(SIG_UNBLOCK, &only, nullptr);
  raise(signal);
  _exit(128 + signal);
}

Interrupts::Interrupts() {
  sigemptyset(&watched_);
  for (int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2}) {
    struct sigaction action;
    // What the parent has us ignore (nohup) stays ignored.
    if (sigaction(signal, nullptr, &action) == 0 && action.sa_handler != SIG_IGN)
      sigaddset(&watched_, signal);
  }
  pthread_sigmask(SIG_BLOCK, &watched_, &before_);
  stop_event_ = eventfd(0, EFD_CLOEXEC);
  PLATTER_ASSERT(stop_event_ >= 0);
  thread_ = std::thread([this] { watch(); });
}

Interrupts::~Interrupts() {
  const uint64_t one = 1;
  PLATTER_ASSERT(write(stop_event_, &one, sizeof one) == sizeof one);
  thread_.join();
  close(stop_event_);
  pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

void Interrupts::set_handler(std::function<void()> handler) {
  std::lock_guard lock(mutex_);
  handler_ = std::move(handler);
}

void Interrupts::set_progress_handler(std::function<void()> handler) {
  std::lock_guard lock(mutex_);
  progress_handler_ = std::move(handler);
}

void Interrupts::set_go_on_handler(std::function<void()> handler) {
  std::lock_guard lock(mutex_);
  go_on_handler_ = std::move(handler);
}

void Interrupts::watch() {
  const int signals = signalfd(-1, &watched_, SFD_CLOEXEC);
  PLATTER_ASSERT(signals >= 0);
  pollfd events[] = {{signals, POLLIN, 0}, {stop_event_, POLLIN, 0}};
  for (;;) {
    if (poll(events, 2, -1) < 0) continue;
    if ((events[0].revents & POLLIN) != 0) {
      signalfd_siginfo info;
      if (read(signals, &info, sizeof info) == sizeof info)
        handle(static_cast<int>(info.ssi_signo));
      continue;
    }
    if ((events[1].revents & POLLIN) != 0) break;
  }
  close(signals);
}

void Interrupts::handle(int signal) {
  std::lock_guard lock(mutex_);
  const bool stops = signal != SIGUSR1 && signal != SIGUSR2;
  auto& handler = stops ? handler_ : signal == SIGUSR1 ? progress_handler_ : go_on_handler_;
  if (stops && caught_ != 0) {
    if (signal != SIGINT) return;
    die_of(signal);
  }
  if (!handler) die_of(signal);
  if (stops) caught_ = signal;
  handler();
}

}  // namespace platter::tool
