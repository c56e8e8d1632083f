// ReactorGroup: the threads of one runtime. N reactors, each on a thread of its own, and the worker
// pool that they share.
//
// Whoever makes a group ends it, after everything that ran on it: destruction stops the reactors,
// joins their threads and then the workers. An embedder with threads of its own builds Reactors
// (io/reactor.h) from engines (io/engine.h) instead and calls run() where it likes.
#pragma once

#include <memory>
#include <thread>
#include <vector>

#include "base/log.h"
#include "io/engine.h"
#include "io/reactor.h"
#include "io/worker_pool.h"

namespace platter::io {

class ReactorGroup {
 public:
  struct Options {
    unsigned reactors = 1;  // 1 to kMaxReactors
    EngineKind engine = EngineKind::kAuto;
    unsigned max_workers = WorkerPool::kDefaultThreads;
    uint64_t random_seed = 0;        // 0: from the system
    const base::Log* log = nullptr;  // hears once, at info level, that io_uring is refused
  };

  static Result<std::unique_ptr<ReactorGroup>> start(Options options);
  ~ReactorGroup();
  ReactorGroup(const ReactorGroup&) = delete;
  ReactorGroup& operator=(const ReactorGroup&) = delete;

  unsigned size() const { return static_cast<unsigned>(reactors_.size()); }
  Reactor& at(unsigned index) { return *reactors_.at(index); }
  WorkerPool& workers() { return workers_; }
  const char* engine_name() { return reactors_.front()->engine().name(); }

 private:
  explicit ReactorGroup(unsigned max_workers) : workers_(max_workers) {}

  // In the order of destruction, last first: a worker may be posting to a reactor.
  std::vector<std::unique_ptr<Reactor>> reactors_;
  WorkerPool workers_;
  std::vector<std::thread> threads_;
};

// Processors that this process may use, at most kMaxReactors.
unsigned usable_processors();

}  // namespace platter::io
