#include "io/file_io.h"

#include <cerrno>

#include "base/try.h"

namespace platter::io {
namespace {

IoRequest transfer(IoRequest::Kind kind, File& file, uint64_t offset, BufferList buffers,
                   IoMode mode) {
  return {.kind = kind,
          .use_threads = mode.use_threads,
          .file = &file,
          .buffers = buffers,
          .offset = offset};
}

Task<Result<void>> allocate_once(File& file, AllocateMode how, uint64_t offset, uint64_t length,
                                 IoMode mode) {
  IoRequest request{.kind = IoRequest::Kind::kAllocate,
                    .use_threads = mode.use_threads,
                    .mode = how,
                    .file = &file,
                    .offset = offset,
                    .length = length};
  auto result = co_await Reactor::current()->submit(std::move(request));
  if (result) co_return Result<void>();
  // What the system calls answer where they lack the operation: ENODEV, ENOSYS, EINVAL (old
  // device drivers), EOPNOTSUPP.
  int code = result.error().code();
  if (code == ENODEV || code == ENOSYS || code == ENOTTY) co_return fail_errno(ENOTSUP);
  co_return std::unexpected(std::move(result).error());
}

}  // namespace

Task<Result<void>> read_full(File& file, uint64_t offset, BufferList buffers, IoMode mode) {
  Reactor& reactor = *Reactor::current();
  while (!buffers.empty()) {
    auto done =
        co_await reactor.submit(transfer(IoRequest::Kind::kRead, file, offset, buffers, mode));
    if (!done) [[unlikely]]
      co_return std::unexpected(std::move(done).error());
    if (*done == buffers.size()) [[likely]]
      break;
    offset += *done;
    buffers = buffers.sub(*done, buffers.size() - *done);
    // The end of the file; or, with direct I/O, so close before it that what is left is no whole
    // block: a further read could not be aligned.
    uint32_t alignment = file.io_alignment();
    if (*done == 0 || (alignment > 1 && offset % alignment != 0)) {
      buffers.fill_zero();
      break;
    }
  }
  co_return Result<void>();
}

Task<Result<void>> write_full(File& file, uint64_t offset, BufferList buffers, IoMode mode,
                              bool durable) {
  Reactor& reactor = *Reactor::current();
  while (!buffers.empty()) {
    IoRequest request = transfer(IoRequest::Kind::kWrite, file, offset, buffers, mode);
    request.durable = durable;
    auto done = co_await reactor.submit(std::move(request));
    if (!done) [[unlikely]]
      co_return std::unexpected(std::move(done).error());
    if (*done == buffers.size()) [[likely]]
      break;
    // Nothing written and no error: a device at its end, or a medium that is full.
    if (*done == 0) co_return fail_errno(ENOSPC);
    offset += *done;
    buffers = buffers.sub(*done, buffers.size() - *done);
  }
  co_return Result<void>();
}

Task<Result<void>> sync(File& file, IoMode mode) {
  IoRequest request{.kind = IoRequest::Kind::kSync, .use_threads = mode.use_threads, .file = &file};
  auto result = co_await Reactor::current()->submit(std::move(request));
  if (!result) co_return std::unexpected(std::move(result).error());
  co_return Result<void>();
}

Task<Result<void>> allocate(File& file, AllocateMode how, uint64_t offset, uint64_t length,
                            IoMode mode) {
  auto result = co_await allocate_once(file, how, offset, length, mode);
  if (result || how != AllocateMode::kZeroRange || result.error().code() != ENOTSUP)
    co_return result;
  auto punched = co_await allocate_once(file, AllocateMode::kPunchHole, offset, length, mode);
  if (!punched) co_return punched;
  auto kept = co_await allocate_once(file, AllocateMode::kAllocateKeepSize, offset, length, mode);
  // The range reads as zeroes already; a file system that cannot reserve space leaves it at that.
  if (!kept && kept.error().code() == ENOTSUP) co_return Result<void>();
  co_return kept;
}

}  // namespace platter::io
