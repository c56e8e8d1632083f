#include "protocol/file/preallocate.h"

#include <algorithm>

#include "base/math.h"
#include "base/try.h"

namespace platter::protocol {

using block::Preallocation;

namespace {

constexpr uint64_t kWriteBytes = uint64_t{1} << 20;

Result<void> set_length(io::File& file, uint64_t size) {
  Result<void> done = file.truncate(size);
  if (!done) done.error().add_context("Could not resize file");
  return done;
}

io::Task<Result<void>> write_growth(io::File& file, uint64_t old_size, uint64_t size,
                                    io::IoMode mode) {
  io::AlignedBuffer zeroes(kWriteBytes);
  zeroes.view().fill_zero();
  // From a whole block, so that direct I/O can do it: the last bytes of the old content stand
  // before it and stay.
  const uint64_t alignment = file.io_alignment();
  uint64_t offset = base::align_up(old_size, alignment);
  while (offset < size) {
    const uint64_t left = base::align_up(size - offset, alignment);
    const uint64_t piece = std::min<uint64_t>(left, zeroes.size());
    Result<void> written = co_await io::write_full(file, offset, zeroes.view(0, piece), mode);
    if (!written) {
      co_return std::unexpected(
          std::move(written).error().with_context("Could not write zeros for preallocation"));
    }
    offset += piece;
  }
  Result<void> synced = co_await io::sync(file, mode);
  if (!synced) {
    co_return std::unexpected(
        std::move(synced).error().with_context("Could not flush file to disk"));
  }
  co_return Result<void>();
}

}  // namespace

io::Task<Result<void>> resize_regular_file(io::File& file, uint64_t old_size, uint64_t size,
                                           Preallocation preallocation, io::IoMode mode) {
  if (preallocation == Preallocation::kOff) co_return set_length(file, size);
  if (preallocation == Preallocation::kMetadata) {
    co_return fail(ENOTSUP, "Unsupported preallocation mode: metadata");
  }
  if (size < old_size) {
    co_return fail(ENOTSUP, "Preallocation can't be used for shrinking files");
  }
  if (size == old_size) co_return Result<void>();
  Result<void> grown;
  if (preallocation == Preallocation::kFalloc) {
    grown =
        co_await io::allocate(file, io::AllocateMode::kAllocate, old_size, size - old_size, mode);
    if (!grown) grown.error().add_context("Could not preallocate data for the new file");
  } else {
    grown = co_await write_growth(file, old_size, size, mode);
    if (grown) grown = set_length(file, size);
  }
  if (!grown) PLATTER_CO_TRY(file.truncate(old_size));
  co_return std::move(grown);
}

}  // namespace platter::protocol
