#include <liburing.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/try.h"
#include "io/blocking_io.h"
#include "io/engine.h"

namespace platter::io {
namespace {

constexpr unsigned kSubmissionEntries = 256;
constexpr unsigned kCompletionEntries = 4096;
// Of requests that wait for the turn's end: a disk begins with the first ones meanwhile.
constexpr unsigned kMaxWaiting = 4;

// Copies from and to files in memory are made by the reactor itself: the kernel's ring has threads
// of its own do them, which spin for the file's lock. A longer write waits for the loop's next
// turn, so that whoever began it can let the next one begin, on another reactor, before.
constexpr size_t kMaxShortWrite = size_t{64} << 10;
// What takes longer still is for the ring: other requests wait for the reactor.
constexpr size_t kMaxOwnCopy = size_t{4} << 20;

// What is not a request among the completions.
constexpr uint64_t kWakeTag = 1;
constexpr uint64_t kCancelTag = 2;
// Set in the address of what waits for readiness.
constexpr uint64_t kReadinessBit = 4;

class UringEngine final : public Engine {
 public:
  explicit UringEngine(WorkerPool& workers) : workers_(workers) {}
  ~UringEngine() override {
    if (ring_ready_) io_uring_queue_exit(&ring_);
    if (wake_fd_ >= 0) close(wake_fd_);
  }

  Result<void> open();
  void attach() override;
  void detach() override;
  void submit(IoRequest& request) override;
  void submit(ReadinessRequest& request) override;
  void cancel(ReadinessRequest& request) override;
  void turn(bool may_block, Nanoseconds deadline) override;
  void wake() override;
  const char* name() const override { return "io_uring"; }

 private:
  io_uring_sqe* next_entry();
  bool hand_over();
  void prepare(io_uring_sqe* entry, IoRequest& request);
  void arm_wake();
  unsigned reap();
  void complete(const io_uring_cqe& completion);
  void enter(bool wait, Nanoseconds deadline);
  void perform_here(IoRequest& request);
  void perform_long_write();
  bool kernel_has_work() const;

  WorkerPool& workers_;
  io_uring ring_{};
  bool ring_ready_ = false;
  bool deferred_ = false;  // completions happen only when the loop asks for them
  bool wake_armed_ = false;
  int wake_fd_ = -1;
  uint64_t wake_count_ = 0;           // what the armed read fills
  IoRequest* long_writes_ = nullptr;  // to files in memory, one a turn
  IoRequest** long_writes_end_ = &long_writes_;
};

Result<void> UringEngine::open() {
  // The ring is made disabled and enabled by the reactor's thread, which thereby becomes its
  // single issuer. Older kernels know fewer flags.
  const unsigned single = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                          IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_R_DISABLED;
  const unsigned attempts[] = {
      single | IORING_SETUP_SUBMIT_ALL,
      IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_R_DISABLED,
      IORING_SETUP_R_DISABLED,
  };
  int status = -EINVAL;
  for (unsigned flags : attempts) {
    io_uring_params params{};
    params.flags = flags | IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE;
    params.cq_entries = kCompletionEntries;
    status = io_uring_queue_init_params(kSubmissionEntries, &ring_, &params);
    if (status == 0 && !(params.features & IORING_FEAT_EXT_ARG)) {
      io_uring_queue_exit(&ring_);
      return fail(ENOSYS, "io_uring: the kernel's is too old (waiting with a timeout is missing)");
    }
    if (status == 0) {
      ring_ready_ = true;
      deferred_ = (flags & IORING_SETUP_TASKRUN_FLAG) != 0;
      break;
    }
    if (status != -EINVAL) break;
  }
  if (status != 0) return std::unexpected(Error::from_errno(-status, "io_uring"));
  wake_fd_ = eventfd(0, EFD_CLOEXEC);
  if (wake_fd_ < 0) return std::unexpected(Error::from_errno(errno, "eventfd"));
  return {};
}

void UringEngine::attach() {
  if (ring_.flags & IORING_SETUP_R_DISABLED) {
    // liburing 2.3 declares io_uring_enable_rings and does not export it.
    long status =
        syscall(SYS_io_uring_register, ring_.ring_fd, IORING_REGISTER_ENABLE_RINGS, nullptr, 0);
    PLATTER_ASSERT(status == 0);
    ring_.flags &= ~unsigned{IORING_SETUP_R_DISABLED};
  }
  arm_wake();
}

// The read of the wake counter is the only operation that may still be in flight: nothing that the
// kernel could write to outlives the loop.
void UringEngine::detach() {
  io_uring_sqe* entry = next_entry();
  io_uring_prep_cancel64(entry, kWakeTag, 0);
  entry->user_data = kCancelTag;
  while (wake_armed_) {
    enter(true, kNever);
    reap();
  }
}

void UringEngine::arm_wake() {
  io_uring_sqe* entry = next_entry();
  io_uring_prep_read(entry, wake_fd_, &wake_count_, sizeof wake_count_, 0);
  entry->user_data = kWakeTag;
  wake_armed_ = true;
}

io_uring_sqe* UringEngine::next_entry() {
  for (;;) {
    if (io_uring_sqe* entry = io_uring_get_sqe(&ring_)) [[likely]]
      return entry;
    if (!hand_over()) {
      io_uring_get_events(&ring_);
      reap();
    }
  }
}

// False: the kernel takes nothing now. EBUSY: it wants room for completions first.
bool UringEngine::hand_over() {
  const int status = io_uring_submit(&ring_);
  PLATTER_ASSERT(status >= 0 || status == -EBUSY || status == -EAGAIN || status == -EINTR);
  return status >= 0;
}

void UringEngine::prepare(io_uring_sqe* entry, IoRequest& request) {
  int fd = request.file->descriptor();
  switch (request.kind) {
    case IoRequest::Kind::kRead:
    case IoRequest::Kind::kWrite: {
      bool write = request.kind == IoRequest::Kind::kWrite;
      uint8_t* single = request.buffers.contiguous();
      if (single != nullptr) {
        size_t size = request.buffers.size();
        auto length = static_cast<unsigned>(size < kMaxTransferBytes ? size : kMaxTransferBytes);
        io_uring_prep_rw(write ? IORING_OP_WRITE : IORING_OP_READ, entry, fd, single, length,
                         request.offset);
      } else {
        auto pieces = request_iovecs(request);
        io_uring_prep_rw(write ? IORING_OP_WRITEV : IORING_OP_READV, entry, fd, pieces.data(),
                         static_cast<unsigned>(pieces.size()), request.offset);
      }
      if (write && request.durable) entry->rw_flags = RWF_DSYNC;
      break;
    }
    case IoRequest::Kind::kSync: io_uring_prep_fsync(entry, fd, IORING_FSYNC_DATASYNC); break;
    case IoRequest::Kind::kAllocate:
      io_uring_prep_fallocate(entry, fd, allocate_flags(request.mode),
                              static_cast<off_t>(request.offset),
                              static_cast<off_t>(request.length));
      break;
  }
  entry->user_data = reinterpret_cast<uint64_t>(&request);
}

void UringEngine::submit(IoRequest& request) {
  if (request.use_threads) {
    submit_blocking(workers_, request);
    return;
  }
  if (request.file->in_memory() && request.kind != IoRequest::Kind::kAllocate &&
      request.buffers.size() <= kMaxOwnCopy) {
    if (request.kind == IoRequest::Kind::kWrite && request.buffers.size() > kMaxShortWrite) {
      *std::exchange(long_writes_end_, &request.next) = &request;
    } else {
      perform_here(request);
    }
    return;
  }
  prepare(next_entry(), request);
  // What is not taken now is at the turn's end.
  if (io_uring_sq_ready(&ring_) >= kMaxWaiting) hand_over();
}

void UringEngine::submit(ReadinessRequest& request) {
  io_uring_sqe* entry = next_entry();
  io_uring_prep_poll_add(entry, request.descriptor, request.for_writing ? POLLOUT : POLLIN);
  entry->user_data = reinterpret_cast<uint64_t>(&request) | kReadinessBit;
}

void UringEngine::cancel(ReadinessRequest& request) {
  io_uring_sqe* entry = next_entry();
  io_uring_prep_cancel64(entry, reinterpret_cast<uint64_t>(&request) | kReadinessBit, 0);
  entry->user_data = kCancelTag;
}

void UringEngine::perform_here(IoRequest& request) {
  perform(request);
  request.waiter.reactor->resume_later(request.waiter.handle);
}

void UringEngine::perform_long_write() {
  IoRequest* request = long_writes_;
  long_writes_ = std::exchange(request->next, nullptr);
  if (long_writes_ == nullptr) long_writes_end_ = &long_writes_;
  perform_here(*request);
}

void UringEngine::complete(const io_uring_cqe& completion) {
  if (completion.user_data == kCancelTag) return;
  if (completion.user_data == kWakeTag) {
    wake_armed_ = false;
    if (completion.res != -ECANCELED) arm_wake();
    return;
  }
  if ((completion.user_data & kReadinessBit) != 0) {
    auto& wait = *reinterpret_cast<ReadinessRequest*>(completion.user_data & ~kReadinessBit);
    wait.result = completion.res < 0 ? -completion.res : 0;
    wait.waiter.reactor->resume_later(wait.waiter.handle);
    return;
  }
  auto& request = *reinterpret_cast<IoRequest*>(completion.user_data);
  if (completion.res == -EINTR || completion.res == -EAGAIN) [[unlikely]] {
    prepare(next_entry(), request);
    return;
  }
  request.result = completion.res;
  request.waiter.reactor->resume_later(request.waiter.handle);
}

unsigned UringEngine::reap() {
  unsigned total = 0;
  io_uring_cqe* batch[64];
  while (unsigned count = io_uring_peek_batch_cqe(&ring_, batch, std::size(batch))) {
    // Copied out first: completing may queue an operation, which may reap.
    io_uring_cqe copies[std::size(batch)];
    for (unsigned i = 0; i < count; ++i) std::memcpy(&copies[i], batch[i], sizeof copies[i]);
    io_uring_cq_advance(&ring_, count);
    for (unsigned i = 0; i < count; ++i) complete(copies[i]);
    total += count;
  }
  return total;
}

bool UringEngine::kernel_has_work() const {
  unsigned flags = __atomic_load_n(ring_.sq.kflags, __ATOMIC_RELAXED);
  return (flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
}

void UringEngine::enter(bool wait, Nanoseconds deadline) {
  int status;
  if (!wait) {
    status = io_uring_submit_and_get_events(&ring_);
  } else if (deadline == kNever) {
    status = io_uring_submit_and_wait(&ring_, 1);
  } else {
    Nanoseconds now = std::chrono::steady_clock::now().time_since_epoch();
    int64_t left = deadline > now ? (deadline - now).count() : 0;
    __kernel_timespec timeout{.tv_sec = left / 1'000'000'000, .tv_nsec = left % 1'000'000'000};
    io_uring_cqe* completion = nullptr;
    status = io_uring_submit_and_wait_timeout(&ring_, &completion, 1, &timeout, nullptr);
  }
  PLATTER_ASSERT(status >= 0 || status == -EINTR || status == -ETIME || status == -EBUSY ||
                 status == -EAGAIN);
}

void UringEngine::turn(bool may_block, Nanoseconds deadline) {
  if (long_writes_ != nullptr) {
    perform_long_write();
    may_block = false;
  }
  if (may_block && io_uring_cq_ready(&ring_) == 0) {
    enter(true, deadline);
  } else if (io_uring_sq_ready(&ring_) != 0 || kernel_has_work()) {
    enter(false, {});
  }
  reap();
}

void UringEngine::wake() {
  uint64_t one = 1;
  ssize_t written = write(wake_fd_, &one, sizeof one);
  PLATTER_ASSERT(written == sizeof one);
}

}  // namespace

Result<std::unique_ptr<Engine>> make_uring_engine(WorkerPool& workers) {
  auto engine = std::make_unique<UringEngine>(workers);
  PLATTER_TRY(engine->open());
  return engine;
}

Result<std::unique_ptr<Engine>> make_engine(EngineKind kind, WorkerPool& workers) {
  if (kind == EngineKind::kThreads) return make_threads_engine(workers);
  auto engine = make_uring_engine(workers);
  if (!engine && kind == EngineKind::kAuto) return make_threads_engine(workers);
  return engine;
}

}  // namespace platter::io
