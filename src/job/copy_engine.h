// The copy engine: the content of one or more images, one after the other, into a target, over all
// reactors that it is given. What convert, mirror and backup stand on.
//
// Workers on every reactor take chunks in guest order (ChunkSource), read them into buffers of
// their own and write what is not zero. The bytes in flight are bounded by workers x buffer size,
// whatever the image, and small enough to stay in the processor's caches between the read and the
// write.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "block/backend.h"
#include "io/cancel.h"
#include "io/reactor.h"
#include "io/sync.h"
#include "io/task.h"
#include "platter/error.h"

namespace platter::job {

struct CopySource {
  block::Backend* backend;
  // Where the target has a backing file of its own: the node below which nothing is copied. What
  // the layers above it do not allocate is left alone in the target.
  block::Node* base = nullptr;
};

struct CopyOptions {
  std::vector<CopySource> sources;   // concatenated in the target
  block::Backend* target = nullptr;  // at least as large as the sources together
  std::span<io::Reactor* const> reactors;

  // The target is known to read as zeroes, past target_backing_size at any rate: zeroes are not
  // written.
  bool target_reads_zero = false;
  // How much of the target its backing file shows through; 0 where it has none.
  uint64_t target_backing_size = 0;
  // Blocks of this many zero bytes are not written as data; 0: everything is. A multiple of 512.
  uint64_t sparse_size = 4096;
  // Data is written compressed, where the target does that, in whole blocks of its
  // compressed_alignment.
  bool compressed = false;
  // Data whose place in a file is known at both ends is copied by the file system, where it can; it
  // is not searched for zeroes.
  bool offload = false;
  // Bytes of data to write in a second, about; 0: no limit.
  uint64_t bytes_per_second = 0;
  // If not empty, a sector of 512 bytes that cannot be read becomes zeroes, and this is told. The
  // same for sectors whose block status cannot be had: they are read. From any of the reactors'
  // threads, also from several at once; offsets are the target's.
  std::function<void(uint64_t offset, const Error& error)> salvage;
  // Writes start in any order, not in guest order.
  bool any_order = false;
  // Chunks in flight over all reactors; at most kMaxCopyWorkers.
  unsigned workers = 8;
  // Bytes; power of two; 0: chosen.
  uint64_t buffer_size = 0;

  // Once it is cancelled, the copy ends soon, with ECANCELED.
  io::CancelToken cancel;
  // Bytes of data done, of how many. From any of the reactors' threads, also from several at once.
  // May be empty.
  std::function<void(uint64_t done, uint64_t total)> progress;
  // The total is counted exactly, by reading the block status of the sources beforehand; else it is
  // a guess that holes are counted in.
  bool count_beforehand = false;
};

inline constexpr unsigned kMaxCopyWorkers = 64;

struct CopyStatistics {
  uint64_t data_bytes = 0;     // written as data
  uint64_t zero_bytes = 0;     // read as data or known beforehand, found zero: zeroed or left
  uint64_t skipped_bytes = 0;  // never looked at
};

// Runs on one of the reactors, or on another one. The target is not flushed. The first error ends
// the copy: "error while reading at byte 65536: ...", "error while writing at byte 0: ..."; offsets
// are the target's.
io::Task<Result<CopyStatistics>> copy(CopyOptions options);

}  // namespace platter::job
