// The engines of real reactors. How a choice is made: kAuto takes io_uring where the kernel permits
// it and threads elsewhere; nothing above can tell the two apart but by speed.
#pragma once

#include <memory>

#include "io/reactor.h"
#include "io/worker_pool.h"
#include "platter/error.h"

namespace platter::io {

enum class EngineKind { kAuto, kUring, kThreads };

// `workers` outlives the engine. kAuto never fails for want of io_uring.
Result<std::unique_ptr<Engine>> make_engine(EngineKind kind, WorkerPool& workers);

// One io_uring. EPERM, ENOSYS: the kernel refuses it.
Result<std::unique_ptr<Engine>> make_uring_engine(WorkerPool& workers);
// epoll for waiting; I/O as blocking calls on the pool.
Result<std::unique_ptr<Engine>> make_threads_engine(WorkerPool& workers);

}  // namespace platter::io
