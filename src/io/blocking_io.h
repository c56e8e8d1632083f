// File operations as blocking system calls: what a worker thread does for a request. Inside io/
// only.
#pragma once

#include "io/reactor.h"
#include "io/worker_pool.h"

namespace platter::io {

// The most that one read or write moves; what is left is the caller's next round.
inline constexpr size_t kMaxTransferBytes = size_t{1} << 30;
inline constexpr size_t kMaxPieces = 1024;  // IOV_MAX

// The request's buffers as iovecs, at most kMaxPieces and kMaxTransferBytes; made in the request's
// scratch, or taken from the caller's array where that says it exactly.
std::span<const iovec> request_iovecs(IoRequest& request);

// fallocate's mode bits.
int allocate_flags(AllocateMode mode);

// Does it here and now and sets the result.
void perform(IoRequest& request);

// Hands the request to `workers`; posts its waiter when it has ended.
void submit_blocking(WorkerPool& workers, IoRequest& request);

}  // namespace platter::io
