#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

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
  void submit(ReadinessRequest& request) override;
  void cancel(ReadinessRequest& request) override {
    if (request.pending) end(request, ECANCELED);
  }

  // Completions arrive through the reactor's post(), which wakes.
  void turn(bool may_block, Nanoseconds deadline) override {
    if (!may_block && waits_ == 0) return;
    timespec timeout{};
    if (may_block && deadline != kNever) {
      Nanoseconds now = std::chrono::steady_clock::now().time_since_epoch();
      int64_t left = deadline > now ? (deadline - now).count() : 0;
      timeout = {.tv_sec = left / 1'000'000'000, .tv_nsec = left % 1'000'000'000};
    }
    const bool for_ever = may_block && deadline == kNever;
    epoll_event events[kEventsOfATurn];
    int count =
        epoll_pwait2(epoll_fd_, events, kEventsOfATurn, for_ever ? nullptr : &timeout, nullptr);
    if (count < 0 && errno == ENOSYS) {
      int64_t milliseconds =
          for_ever ? -1 : timeout.tv_sec * 1000 + (timeout.tv_nsec + 999'999) / 1'000'000;
      if (milliseconds > 1'000'000) milliseconds = 1'000'000;
      count = epoll_wait(epoll_fd_, events, kEventsOfATurn, static_cast<int>(milliseconds));
    }
    PLATTER_ASSERT(count >= 0 || errno == EINTR);
    for (int i = 0; i < count; ++i) {
      if (auto* request = static_cast<ReadinessRequest*>(events[i].data.ptr)) {
        end(*request, 0);
      } else {
        take_wakes();
      }
    }
  }

  void wake() override {
    uint64_t one = 1;
    ssize_t written = write(wake_fd_, &one, sizeof one);
    PLATTER_ASSERT(written == sizeof one);
  }

  const char* name() const override { return "threads"; }

 private:
  static constexpr int kEventsOfATurn = 16;

  void take_wakes() const {
    uint64_t wakes;
    ssize_t got = read(wake_fd_, &wakes, sizeof wakes);
    PLATTER_ASSERT(got == sizeof wakes || (got < 0 && errno == EAGAIN));
  }
  void end(ReadinessRequest& request, int result);

  WorkerPool& workers_;
  int epoll_fd_ = -1;
  int wake_fd_ = -1;
  unsigned waits_ = 0;  // for readiness
};

// A second wait for the same descriptor needs one of its own: epoll knows each once.
void ThreadsEngine::submit(ReadinessRequest& request) {
  epoll_event event{.events = request.for_writing ? EPOLLOUT : EPOLLIN, .data = {.ptr = &request}};
  int status = epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, request.descriptor, &event);
  if (status != 0 && errno == EEXIST) {
    request.duplicate = fcntl(request.descriptor, F_DUPFD_CLOEXEC, 0);
    if (request.duplicate >= 0)
      status = epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, request.duplicate, &event);
  }
  request.pending = true;
  ++waits_;
  if (status != 0) end(request, errno);
}

void ThreadsEngine::end(ReadinessRequest& request, int result) {
  request.pending = false;
  --waits_;
  // It may be open elsewhere, too, and would go on being watched after it is closed here.
  const int watched = request.duplicate >= 0 ? request.duplicate : request.descriptor;
  epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, watched, nullptr);
  if (request.duplicate >= 0) close(std::exchange(request.duplicate, -1));
  request.result = result;
  request.waiter.reactor->resume_later(request.waiter.handle);
}

}  // namespace

Result<std::unique_ptr<Engine>> make_threads_engine(WorkerPool& workers) {
  auto engine = std::make_unique<ThreadsEngine>(workers);
  PLATTER_TRY(engine->open());
  return engine;
}

}  // namespace platter::io
