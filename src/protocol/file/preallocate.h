// Giving a regular file its length, and its space if that is wanted.
#pragma once

#include <cstdint>

#include "block/types.h"
#include "io/file.h"
#include "io/file_io.h"
#include "io/task.h"
#include "platter/error.h"

namespace platter::protocol {

// From `old_size` to `size`. The growth reads as zeroes; kFalloc reserves its space, kFull writes
// it. On failure the length is the old one again.
io::Task<Result<void>> resize_regular_file(io::File& file, uint64_t old_size, uint64_t size,
                                           block::Preallocation preallocation, io::IoMode mode);

}  // namespace platter::protocol
