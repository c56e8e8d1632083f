// WorkerPool: threads for calls that block and for CPU work. Shared by the reactors of a group.
//
// Threads are started as jobs need them, up to a limit, and end with the pool. Jobs start first
// come, first served. run() may be called from any thread. The destructor waits for the
// jobs that have begun; a job that has not is a bug of its owner (asserted).
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace platter::io {

// Intrusive: lives with whoever waits for it, untouched by the pool once `run` was called.
struct Job {
  void (*run)(void* context) = nullptr;
  void* context = nullptr;
  Job* next = nullptr;
};

class WorkerPool {
 public:
  static constexpr unsigned kDefaultThreads = 64;

  explicit WorkerPool(unsigned max_threads = kDefaultThreads) : max_threads_(max_threads) {}
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  void run(Job& job);

 private:
  void work();

  const unsigned max_threads_;
  std::mutex mutex_;
  std::condition_variable wake_;
  Job* first_ = nullptr;
  Job** last_ = &first_;
  unsigned queued_ = 0;
  unsigned idle_ = 0;
  bool ending_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace platter::io
