// The compare engine: whether two images read the same, over all reactors that it is given. What
// one image has beyond the other's end must read as zeroes.
//
// Block status says what need not be read: where both read as zeroes nothing is, where one does
// only the other is.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "block/backend.h"
#include "io/cancel.h"
#include "io/reactor.h"
#include "io/sync.h"
#include "io/task.h"
#include "platter/error.h"

namespace platter::job {

struct CompareOptions {
  block::Backend* images[2] = {};
  std::span<io::Reactor* const> reactors;
  // What is allocated, and what is data or zeroes, must be the same too, as far as both images
  // reach.
  bool strict = false;
  // Chunks in flight over all reactors, of 1 MiB of each image.
  unsigned workers = 4;
  io::CancelToken cancel;
  // Bytes done of how many. From any of the reactors' threads, also from several at once.
  std::function<void(uint64_t done, uint64_t total)> progress;
};

struct CompareOutcome {
  enum class Kind {
    kIdentical,
    kContentDiffers,
    kStatusDiffers,  // strict
    kStatusFailed,   // block status of `image` could not be had
    kReadFailed,     // `image` could not be read
    kCancelled,
  };
  Kind kind = Kind::kIdentical;
  // The lowest offset at which there was anything to say; of a content difference, the first sector
  // of 512 bytes that differs (counted from where the run that it is in begins).
  uint64_t offset = 0;
  unsigned image = 0;
  std::optional<Error> error;
};

io::Task<CompareOutcome> compare(CompareOptions options);

}  // namespace platter::job
