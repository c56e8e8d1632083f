#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>

#include "base/try.h"
#include "io/blocking_io.h"
#include "io/engine.h"

namespace platter::io {
namespace {

class ThreadsEngine final : public Engine {
 public:
  explicit ThreadsEngine(WorkerPool& workers) : workers_(workers) {}
  ~ThreadsEngine() override {
    if (epoll_fd_ >= 0) close(epoll_fd_);
    if (wake_fd_ >= 0) close(wake_fd_);
  }

  Result<void> open() {
    wake_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake_fd_ < 0) return std::unexpected(Error::from_errno(errno, "eventfd"));
    epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd_ < 0) return std::unexpected(Error::from_errno(errno, "epoll"));
    epoll_event event{.events = EPOLLIN, .data = {}};
    if (epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, wake_fd_, &event) != 0)
      return std::unexpected(Error::from_errno(errno, "epoll"));
    return {};
  }

  void submit(IoRequest& request) override { submit_blocking(workers_, request); }

  // Completions arrive through the reactor's post(), which wakes.
  void turn(bool may_block, Nanoseconds deadline) override {
    if (!may_block) return;
    timespec timeout{};
    if (deadline != kNever) {
      Nanoseconds now = std::chrono::steady_clock::now().time_since_epoch();
      int64_t left = deadline > now ? (deadline - now).count() : 0;
      timeout = {.tv_sec = left / 1'000'000'000, .tv_nsec = left % 1'000'000'000};
    }
    epoll_event event;
    int count =
        epoll_pwait2(epoll_fd_, &event, 1, deadline == kNever ? nullptr : &timeout, nullptr);
    if (count < 0 && errno == ENOSYS) {
      int64_t milliseconds =
          deadline == kNever ? -1 : timeout.tv_sec * 1000 + (timeout.tv_nsec + 999'999) / 1'000'000;
      if (milliseconds > 1'000'000) milliseconds = 1'000'000;
      count = epoll_wait(epoll_fd_, &event, 1, static_cast<int>(milliseconds));
    }
    PLATTER_ASSERT(count >= 0 || errno == EINTR);
    if (count > 0) {
      uint64_t wakes;
      ssize_t got = read(wake_fd_, &wakes, sizeof wakes);
      PLATTER_ASSERT(got == sizeof wakes || (got < 0 && errno == EAGAIN));
    }
  }

  void wake() override {
    uint64_t one = 1;
    ssize_t written = write(wake_fd_, &one, sizeof one);
    PLATTER_ASSERT(written == sizeof one);
  }

  const char* name() const override { return "threads"; }

 private:
  WorkerPool& workers_;
  int epoll_fd_ = -1;
  int wake_fd_ = -1;
};

}  // namespace

Result<std::unique_ptr<Engine>> make_threads_engine(WorkerPool& workers) {
  auto engine = std::make_unique<ThreadsEngine>(workers);
  PLATTER_TRY(engine->open());
  return engine;
}

}  // namespace platter::io
