// The rebase engine: makes an overlay read the same through another backing file, by writing into
// it what the old one shows and the new one does not. Runs over all reactors that it is given.
//
// Nothing that the overlay reads as changes at any time, so it may end anywhere, by a failure or a
// cut in power: the overlay is as good as before with its old backing file, and a later run goes
// on where this one stopped. To name the new backing file, in the image, is for the caller, after a
// flush.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "block/backend.h"
#include "io/cancel.h"
#include "io/reactor.h"
#include "io/task.h"
#include "platter/error.h"

namespace platter::job {

struct RebaseOptions {
  block::Backend* overlay = nullptr;      // writable
  block::Backend* old_backing = nullptr;  // of the node that is the overlay's backing; null: none
  block::Backend* new_backing = nullptr;  // null: none, everything is copied
  // The node of the overlay's chain that is the same image as `new_backing`, if there is one: what
  // the layers above it do not allocate is the same.
  block::Node* common = nullptr;
  std::span<io::Reactor* const> reactors;
  bool compressed = false;  // write compressed, where the overlay can
  unsigned workers = 4;     // chunks in flight over all reactors
  io::CancelToken cancel;
  // Bytes of the overlay that are done, of how many. From any of the reactors' threads.
  std::function<void(uint64_t done, uint64_t total)> progress;
};

// The bytes that were written. The first error ends it: "error while reading from old backing file
// at byte 65536: ...".
io::Task<Result<uint64_t>> rebase(RebaseOptions options);

}  // namespace platter::job
