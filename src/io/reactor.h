// Reactor: one thread's event loop, and the seam behind which everything nondeterministic lives.
//
// A task runs on one reactor from start to end unless it says otherwise (run_on). The loop resumes every
// task that is ready before it submits the I/O they asked for: one system call a batch. Ready tasks come from
// this thread (resume_later) or from any other (post).
//
// What a task may ask for — time, sleep, randomness, file I/O, a call on a worker thread — goes through the
// reactor, so that a test can put a simulated one in its place (io/simulation.h): the same
// driver code then runs with virtual time, a seeded order of tasks and a disk that loses power.
//
// Threads: post() may be called from anywhere; everything else only on the reactor's own thread.
// No heap allocation in the steady state: an operation's state lives in the awaiting frame.
#pragma once

#include <atomic>
#include <chrono>
#include <coroutine>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "io/buffer.h"
#include "io/file.h"
#include "io/task.h"
#include "platter/error.h"

namespace platter::io {

class WorkerPool;

// More reactors than this in one runtime are refused: per-reactor state is laid out in arrays.
inline constexpr unsigned kMaxReactors = 64;

using Nanoseconds = std::chrono::nanoseconds;  // since an arbitrary start, monotonic

// A suspended coroutine and the reactor it belongs to. Lives in the suspended frame (intrusive).
struct Waiter {
  std::coroutine_handle<> handle;
  class Reactor* reactor = nullptr;
  Waiter* next = nullptr;
  Waiter* previous = nullptr;
};

// One asynchronous file operation; lives in the awaiting frame.
struct IoRequest {
  enum class Kind : uint8_t { kRead, kWrite, kSync, kAllocate };
  Kind kind;
  bool durable = false;  // kWrite: completes when the data is on stable storage (RWF_DSYNC)
  bool use_threads = false;  // run it as a blocking call on the worker pool (aio=threads)
  AllocateMode mode{};   // kAllocate
  File* file = nullptr;
  BufferList buffers;    // kRead, kWrite
  uint64_t offset = 0;
  uint64_t length = 0;   // kAllocate
  int64_t result = 0;    // bytes done, or -errno
  Waiter waiter;
  iovec iov[4];          // engine's scratch, for lists that fit
};

// What runs a reactor's I/O and its waiting. Implementations: io_uring, epoll + threads, simulation.
class Engine {
 public:
  virtual ~Engine() = default;
  // Starts `request`; when it has ended sets result and makes request.waiter ready on the reactor.
  virtual void submit(IoRequest& request) = 0;
  // Submits what is queued and reaps what has completed. Blocks while nothing is ready, until
  // `deadline` at the latest, if `may_block`.
  virtual void turn(bool may_block, Nanoseconds deadline) = 0;
  // Makes a turn() that blocks return soon. Any thread.
  virtual void wake() = 0;
  virtual const char* name() const = 0;
};

class Reactor {
 public:
  struct Services {
    std::function<Nanoseconds()> now;  // empty: the monotonic clock
    uint64_t random_seed = 0;
    WorkerPool* workers = nullptr;     // null: call() runs inline
  };
  Reactor(unsigned index, std::unique_ptr<Engine> engine, Services services);
  ~Reactor();
  Reactor(const Reactor&) = delete;
  Reactor& operator=(const Reactor&) = delete;

  static Reactor* current();  // of this thread, or null
  unsigned index() const { return index_; }
  Engine& engine() { return *engine_; }

  // ---- Ready tasks
  // Any thread. The waiter must stay valid until its coroutine has been resumed.
  void post(Waiter& waiter) noexcept;
  // This reactor's thread.
  void resume_later(std::coroutine_handle<> handle);
  // co_await reactor.yield(): lets every other ready task run first.
  auto yield();

  // ---- Time and chance
  Nanoseconds now() const;
  Task<void> sleep_for(Nanoseconds duration);
  Task<void> sleep_until(Nanoseconds deadline);
  uint64_t random();

  // ---- File I/O. `result`: bytes transferred (reads end short at the end of the file), or an
  // error. Buffers and file outlive the await.
  class IoAwaiter;
  IoAwaiter submit(IoRequest request);

  // Runs `fn` on a worker thread (a blocking call, or CPU work) and resumes here with its value.
  template <typename Fn>
  auto call(Fn fn);

  // ---- The loop
  void run();          // until stop(); makes this thread the reactor's
  void stop();         // any thread; run() returns once no ready task is left
  bool run_ready();    // one round of ready tasks and due timers; used by run() and simulations

 private:
  unsigned index_;
  std::unique_ptr<Engine> engine_;
};

// Where a waiter lives does not matter to who wakes it: post to the reactor it suspended on.
inline void wake(Waiter& waiter) noexcept { waiter.reactor->post(waiter); }

// Runs `task` on `target` and resumes the caller, on its own reactor, with the result.
template <typename T>
Task<T> run_on(Reactor& target, Task<T> task);

// Runs `task` on `target` from a thread that is no reactor, and waits for it.
template <typename T>
T run_blocking(Reactor& target, Task<T> task);

}  // namespace platter::io
