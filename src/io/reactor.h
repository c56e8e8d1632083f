// Reactor: one thread's event loop, and the seam behind which everything nondeterministic lives.
//
// A task runs on one reactor from start to end unless it says otherwise (run_on). The loop resumes
// every task that is ready before it submits the I/O they asked for: one system call a batch.
// Ready tasks come from this thread (resume_later) or from any other (post).
//
// What a task may ask for — time, sleep, randomness, file I/O, a call on a worker thread — goes
// through the reactor, so that a test can put a simulated one in its place (io/simulation.h): the
// same driver code then runs with virtual time, a seeded order of tasks and a disk that loses
// power.
//
// Threads: post() and stop() may be called from anywhere; everything else only on the reactor's
// own thread. No heap allocation in the steady state: an operation's state lives in the awaiting
// frame.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <coroutine>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "base/probe.h"
#include "io/buffer.h"
#include "io/file.h"
#include "io/random.h"
#include "io/request_times.h"
#include "io/task.h"
#include "io/worker_pool.h"
#include "platter/error.h"

namespace platter::io {

class Reactor;

// More reactors than this in one runtime are refused: per-reactor state is laid out in arrays.
inline constexpr unsigned kMaxReactors = 64;

using Nanoseconds = std::chrono::nanoseconds;  // since an arbitrary start, monotonic
inline constexpr Nanoseconds kNever = Nanoseconds::max();

// A suspended coroutine and the reactor it belongs to. Lives in the suspended frame (intrusive).
struct Waiter {
  std::coroutine_handle<> handle;
  Reactor* reactor = nullptr;
  Waiter* next = nullptr;
  Waiter* previous = nullptr;
};

// One asynchronous file operation; lives in the awaiting frame.
struct IoRequest {
  enum class Kind : uint8_t { kRead, kWrite, kSync, kAllocate };
  Kind kind;
  bool durable = false;      // kWrite: completes when the data is on stable storage (RWF_DSYNC)
  bool use_threads = false;  // run it as a blocking call on the worker pool (aio=threads)
  AllocateMode mode{};       // kAllocate
  File* file = nullptr;
  BufferList buffers{};  // kRead, kWrite
  uint64_t offset = 0;
  uint64_t length = 0;  // kAllocate
  int64_t result = 0;   // bytes done, or -errno

  // The engine's own, from submit() until the waiter is made ready.
  Waiter waiter{};
  Job job{};
  IoRequest* next = nullptr;
  std::unique_ptr<iovec[]> many{};  // for windows that the scratch cannot hold and that cut a piece
  struct Scratch {
    Scratch() {}  // left as it is: most requests are of one piece
    iovec iov[4];
  } scratch{};
};

// A wait for a descriptor that is no file (io/descriptor.h). Lives in the awaiting frame.
struct ReadinessRequest {
  int descriptor = -1;
  bool for_writing = false;
  int result = 0;  // 0: ready, or has an error to be read; ECANCELED; another errno

  Waiter waiter{};
  // The engine's own.
  int duplicate = -1;
  bool pending = false;
};

// Something that can be found out by looking, sooner than by being told: a ring in memory that
// another process fills. While a reactor has pollers it looks at them in each turn, and goes on
// looking for a while before it sleeps (Reactor::set_polling). Called on the reactor's thread,
// between tasks; none of these calls adds or removes a poller.
class Poller {
 public:
  virtual ~Poller() = default;
  // Takes what is there. True: there was something.
  virtual bool look() = 0;
  // The turn's tasks have run: shows the other side what they have done.
  virtual void settle() = 0;
  // The reactor goes to sleep: asks the other side to tell. True: it will, and the poller is
  // removed. False: something has come meanwhile.
  virtual bool rest() = 0;
};

// A point in time that a coroutine waits for. Lives in the awaiting frame.
struct Timer {
  Nanoseconds deadline{};
  uint64_t sequence = 0;  // among equal deadlines: first come, first served
  size_t position = 0;    // in the heap
  std::coroutine_handle<> handle;
};

// What runs a reactor's I/O and its waiting. Implementations: io_uring, epoll + threads,
// simulation.
class Engine {
 public:
  virtual ~Engine() = default;
  // The reactor's thread begins and ends its loop: everything else, but wake(), happens in between.
  virtual void attach() {}
  virtual void detach() {}
  // Starts `request`; when it has ended sets result and makes request.waiter ready on the reactor.
  virtual void submit(IoRequest& request) = 0;
  // Makes request.waiter ready when the descriptor is, or when it was cancelled.
  virtual void submit(ReadinessRequest& request) = 0;
  virtual void cancel(ReadinessRequest& request) = 0;
  // Submits what is queued and reaps what has completed. Blocks while nothing is ready, until
  // `deadline` at the latest, if `may_block`.
  virtual void turn(bool may_block, Nanoseconds deadline) = 0;
  // Makes a turn() that blocks, or the next one that would, return soon. Any thread.
  virtual void wake() = 0;
  virtual const char* name() const = 0;
};

// What is ready on a reactor: a ring of coroutine handles that grows.
class ReadyQueue {
 public:
  ReadyQueue();
  bool empty() const { return head_ == tail_; }
  size_t size() const { return tail_ - head_; }
  void push(std::coroutine_handle<> handle) {
    if (size() > mask_) [[unlikely]]
      grow();
    ring_[tail_++ & mask_] = handle;
  }
  std::coroutine_handle<> pop() { return ring_[head_++ & mask_]; }
  // Takes out the one at `position`; the first one takes its place.
  std::coroutine_handle<> pop_at(size_t position) {
    std::swap(ring_[(head_ + position) & mask_], ring_[head_ & mask_]);
    return pop();
  }

 private:
  void grow();
  std::unique_ptr<std::coroutine_handle<>[]> ring_;
  size_t mask_;
  size_t head_ = 0;
  size_t tail_ = 0;
};

class Reactor {
 public:
  // Tasks resumed between two turns of the engine, at most.
  static constexpr unsigned kMaxBatch = 1024;

  struct Services {
    std::function<Nanoseconds()> now;  // empty: the monotonic clock
    uint64_t random_seed = 0;
    WorkerPool* workers = nullptr;  // null: call() runs on the reactor, as a turn of its own
  };
  Reactor(unsigned index, std::unique_ptr<Engine> engine, Services services);
  ~Reactor();  // nothing is ready or sleeps on it (asserted)
  Reactor(const Reactor&) = delete;
  Reactor& operator=(const Reactor&) = delete;

  static Reactor* current() { return current_; }  // of this thread, or null
  unsigned index() const { return index_; }
  Engine& engine() { return *engine_; }

  // ---- Ready tasks
  // Any thread. The waiter must stay valid until its coroutine has been resumed.
  void post(Waiter& waiter) noexcept;
  // This reactor's thread.
  void resume_later(std::coroutine_handle<> handle) { ready_.push(handle); }
  // co_await reactor.yield(): lets every other ready task run first.
  auto yield();
  // co_await reactor.enter(): goes on running on this reactor, whichever it was on before.
  auto enter();

  // ---- Time and chance; this reactor's thread.
  Nanoseconds now();
  // What now() gave last since the reactor resumed a task or began a turn; now(), if nobody has
  // asked since. For the start of what was found waiting: it has waited here since then.
  Nanoseconds recent() { return recent_ != Nanoseconds::zero() ? recent_ : now(); }
  Task<void> sleep_for(Nanoseconds duration);
  Task<void> sleep_until(Nanoseconds deadline);
  void add_timer(Timer& timer);
  // Before its coroutine was made ready. False: too late, it has been.
  bool remove_timer(Timer& timer);
  uint64_t random() { return random_.next(); }

  // ---- File I/O. co_await gives Result<uint64_t>: bytes transferred (reads end short at the end
  // of the file; any transfer may be short, io/file_io.h has the loops). Buffers and file outlive
  // it.
  class IoAwaiter;
  IoAwaiter submit(IoRequest request);

  // co_await reactor.call(fn): runs `fn` on a worker thread (a blocking call, or CPU work) and
  // resumes here with its value.
  template <typename Fn>
  auto call(Fn fn);

  // ---- Looking instead of sleeping
  // A poller is added once at a time, and stays until it rests or is removed.
  void add_poller(Poller& poller) { pollers_.push_back(&poller); }
  void remove_poller(Poller& poller);
  // How long to look before a sleep, at most: as long as it was lately worth. Zero: not at all.
  void set_polling(Nanoseconds longest);

  // ---- The loop
  void run();   // until stop(); makes this thread the reactor's
  void stop();  // any thread; run() returns once no ready task is left

  // ---- For a simulation, which is its own loop.
  class Running;                    // makes a reactor current while it lives
  size_t collect_ready();           // takes in what was posted; how many are ready
  void resume_at(size_t position);  // < collect_ready()
  Nanoseconds next_deadline() const { return timers_.empty() ? kNever : timers_[0]->deadline; }
  void expire_timers();  // makes ready those whose time has come

 private:
  void run_ready();
  void resume(std::coroutine_handle<> handle);
  void wait_for_work(bool may_block);
  bool look_at_pollers();
  void settle_pollers();
  bool look_for_a_while();
  bool rest_pollers();
  void learn_from_sleep(Nanoseconds slept);
  void place_timer(size_t position, Timer* timer);
  void sift_timer(size_t position);

  static constinit thread_local Reactor* current_;

  const unsigned index_;
  std::unique_ptr<Engine> engine_;
  Services services_;
  ReadyQueue ready_;
  std::vector<Timer*> timers_;  // a binary heap
  uint64_t timer_sequence_ = 0;
  Random random_;
  std::vector<Poller*> pollers_;
  Nanoseconds recent_{};  // zero: has not been asked for
  Nanoseconds longest_look_{};
  Nanoseconds look_{};  // how long the next one is

  // Written by other threads: on lines of their own.
  alignas(64) std::atomic<Waiter*> posted_{nullptr};  // last in, first out
  std::atomic<bool> stopping_{false};
  alignas(64) std::atomic<bool> sleeping_{false};
};

// ---- Implementation of the awaiters and templates

class Reactor::Running {
 public:
  explicit Running(Reactor* reactor) : before_(std::exchange(current_, reactor)) {}
  ~Running() { current_ = before_; }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

 private:
  Reactor* before_;
};

namespace detail {

struct TimerAwaiter {
  Reactor& reactor;
  Timer& timer;  // with its deadline
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) {
    timer.handle = handle;
    reactor.add_timer(timer);
  }
  void await_resume() const noexcept {}
};

struct YieldAwaiter {
  Reactor& reactor;
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) { reactor.resume_later(handle); }
  void await_resume() const noexcept {}
};

struct EnterAwaiter {
  Reactor& reactor;
  Waiter waiter;
  bool await_ready() const noexcept { return Reactor::current() == &reactor; }
  void await_suspend(std::coroutine_handle<> handle) noexcept {
    waiter = {.handle = handle, .reactor = &reactor};
    reactor.post(waiter);
  }
  void await_resume() const noexcept {}
};

template <typename Fn>
struct CallAwaiter {
  using Value = decltype(std::declval<Fn&>()());
  Reactor& reactor;
  WorkerPool* workers;
  Fn fn;
  Waiter waiter;
  Job job;
  std::optional<std::conditional_t<std::is_void_v<Value>, Nothing, Value>> value;

  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) {
    waiter = {.handle = handle, .reactor = &reactor};
    if (workers == nullptr) {
      reactor.resume_later(handle);
      return;
    }
    job = {.run = &CallAwaiter::work, .context = this};
    workers->run(job);
  }
  Value await_resume() {
    if (workers == nullptr) return fn();
    if constexpr (!std::is_void_v<Value>) return std::move(*value);
  }
  static void work(void* context) {
    auto* self = static_cast<CallAwaiter*>(context);
    if constexpr (std::is_void_v<Value>) {
      self->fn();
    } else {
      self->value.emplace(self->fn());
    }
    self->reactor.post(self->waiter);
  }
};

}  // namespace detail

// A coroutine that nobody awaits: it is started once, and frees itself when it ends. Whoever starts
// one waits for its end by other means: io::Gate does, for a task of any kind.
struct SelfOwned {
  struct promise_type {
    Waiter start;
    RequestTimes* times = nullptr;
    static void* operator new(size_t size) { return allocate_frame(size); }
    static void operator delete(void* frame, size_t size) noexcept { free_frame(frame, size); }
    SelfOwned get_return_object() noexcept { return {this}; }
    std::suspend_always initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() noexcept {}
    [[noreturn]] void unhandled_exception() noexcept { std::terminate(); }
  };
  promise_type* promise;
  void start_on(Reactor& reactor) {
    promise->start = {.handle = std::coroutine_handle<promise_type>::from_promise(*promise),
                      .reactor = &reactor};
    reactor.post(promise->start);
  }
  // Returns when it waits or has ended.
  void start_here() {
    const int left = std::exchange(detail::transfers_left, kMaxTransfers);
    std::coroutine_handle<promise_type>::from_promise(*promise).resume();
    detail::transfers_left = left;
  }
};

inline auto Reactor::yield() { return detail::YieldAwaiter{*this}; }
inline auto Reactor::enter() { return detail::EnterAwaiter{*this, {}}; }

template <typename Fn>
auto Reactor::call(Fn fn) {
  return detail::CallAwaiter<Fn>{*this, services_.workers, std::move(fn), {}, {}, {}};
}

class Reactor::IoAwaiter {
 public:
  IoAwaiter(Reactor& reactor, IoRequest&& request)
      : reactor_(reactor), request_(std::move(request)) {}

  bool await_ready() const noexcept { return false; }
  template <typename Promise>
  void await_suspend(std::coroutine_handle<Promise> handle) {
    request_.waiter = {.handle = handle, .reactor = &reactor_};
    times_ = detail::times_of(handle.promise());
    if (times_ != nullptr) [[unlikely]]
      times_->file_begins(reactor_.now());
    PLATTER_PROBE(file_request_submit, &request_, static_cast<int>(request_.kind), request_.offset,
                  request_.buffers.size() + request_.length);
    reactor_.engine_->submit(request_);
  }
  Result<uint64_t> await_resume() {
    PLATTER_PROBE(file_request_complete, &request_, static_cast<int>(request_.kind),
                  request_.result);
    if (times_ != nullptr) [[unlikely]]
      times_->file_ends(reactor_.now());
    if (request_.result < 0) [[unlikely]]
      return std::unexpected(Error::from_errno(static_cast<int>(-request_.result)));
    return static_cast<uint64_t>(request_.result);
  }

 private:
  Reactor& reactor_;
  RequestTimes* times_ = nullptr;
  IoRequest request_;
};

inline Reactor::IoAwaiter Reactor::submit(IoRequest request) {
  return IoAwaiter(*this, std::move(request));
}

// Where a waiter lives does not matter to who wakes it: post to the reactor it suspended on.
inline void wake(Waiter& waiter) noexcept { waiter.reactor->post(waiter); }

// Runs `task` on `target` and resumes the caller, on its own reactor, with the result.
template <typename T>
Task<T> run_on(Reactor& target, Task<T> task) {
  Reactor& home = *Reactor::current();
  co_await target.enter();
  if constexpr (std::is_void_v<T>) {
    co_await std::move(task);
    co_await home.enter();
  } else {
    T value = co_await std::move(task);
    co_await home.enter();
    co_return value;
  }
}

namespace detail {

template <typename T>
struct BlockingResult {
  std::mutex mutex;
  std::condition_variable ended;
  bool has_ended = false;
  std::optional<std::conditional_t<std::is_void_v<T>, Nothing, T>> value;

  void end() {
    // Notified under the lock: once it is free, the waiter may be gone with all of this.
    std::lock_guard lock(mutex);
    has_ended = true;
    ended.notify_one();
  }
};

template <typename T>
SelfOwned run_for_thread(Task<T> task, BlockingResult<T>& result) {
  {
    Task<T> own = std::move(task);
    if constexpr (std::is_void_v<T>) {
      co_await std::move(own);
    } else {
      result.value.emplace(co_await std::move(own));
    }
  }
  result.end();
}

}  // namespace detail

// Runs `task` on `target` from a thread that is no reactor (asserted), and waits for it.
template <typename T>
T run_blocking(Reactor& target, Task<T> task) {
  PLATTER_ASSERT(Reactor::current() == nullptr);
  detail::BlockingResult<T> result;
  detail::run_for_thread(std::move(task), result).start_on(target);
  std::unique_lock lock(result.mutex);
  while (!result.has_ended) result.ended.wait(lock);
  if constexpr (!std::is_void_v<T>) return std::move(*result.value);
}

}  // namespace platter::io
