// Whole transfers on files: the loops over short reads and writes, and what an error of the system
// call means. What protocol drivers call; runs on the current reactor.
//
// `file` and the buffers' memory outlive the await. Errors carry the errno and the system's text.
#pragma once

#include <cstdint>

#include "io/buffer.h"
#include "io/file.h"
#include "io/reactor.h"
#include "io/task.h"
#include "platter/error.h"

namespace platter::io {

struct IoMode {
  bool use_threads = false;  // blocking calls on the worker pool, even where io_uring could do it
};

// Fills all of `buffers`; with zeroes past the end of the file.
Task<Result<void>> read_full(File& file, uint64_t offset, BufferList buffers, IoMode mode = {});
// `durable`: on stable storage when it completes.
Task<Result<void>> write_full(File& file, uint64_t offset, BufferList buffers, IoMode mode = {},
                              bool durable = false);
// What had completed before the call is on stable storage after it (fdatasync).
Task<Result<void>> sync(File& file, IoMode mode = {});
// ENOTSUP: the medium cannot do it in that way; nothing was done. kZeroRange is made of a punch and
// an allocation where the file system lacks it.
Task<Result<void>> allocate(File& file, AllocateMode how, uint64_t offset, uint64_t length,
                            IoMode mode = {});

}  // namespace platter::io
