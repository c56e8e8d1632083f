#include "io/worker_pool.h"

#include "base/assert.h"

namespace platter::io {

WorkerPool::~WorkerPool() {
  {
    std::lock_guard lock(mutex_);
    PLATTER_ASSERT(first_ == nullptr);
    ending_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void WorkerPool::run(Job& job) {
  std::lock_guard lock(mutex_);
  PLATTER_ASSERT(!ending_);
  job.next = nullptr;
  *last_ = &job;
  last_ = &job.next;
  ++queued_;
  if (queued_ > idle_ && threads_.size() < max_threads_) {
    threads_.emplace_back([this] { work(); });
  } else if (idle_ != 0) {
    wake_.notify_one();
  }
}

void WorkerPool::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    while (first_ == nullptr) {
      if (ending_) return;
      ++idle_;
      wake_.wait(lock);
      --idle_;
    }
    Job* job = first_;
    first_ = job->next;
    if (first_ == nullptr) last_ = &first_;
    --queued_;
    lock.unlock();
    job->run(job->context);
    lock.lock();
  }
}

}  // namespace platter::io
