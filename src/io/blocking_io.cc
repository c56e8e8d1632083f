#include "io/blocking_io.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>

#include "io/memory_writer.h"

namespace platter::io {
namespace {

template <typename Call>
int64_t retry(Call call) {
  for (;;) {
    int64_t result = call();
    if (result >= 0) return result;
    if (errno != EINTR) return -errno;
  }
}

int64_t call_for(IoRequest& request) {
  int fd = request.file->descriptor();
  auto offset = static_cast<off_t>(request.offset);
  switch (request.kind) {
    case IoRequest::Kind::kRead: {
      auto pieces = request_iovecs(request);
      return retry(
          [&] { return preadv(fd, pieces.data(), static_cast<int>(pieces.size()), offset); });
    }
    case IoRequest::Kind::kWrite: {
      auto pieces = request_iovecs(request);
      MemoryWriter* writer = request.file->memory_writer();
      if (writer != nullptr && !request.durable) return writer->write(pieces, request.offset);
      int flags = request.durable ? RWF_DSYNC : 0;
      return retry([&] {
        return pwritev2(fd, pieces.data(), static_cast<int>(pieces.size()), offset, flags);
      });
    }
    case IoRequest::Kind::kSync: return retry([&] { return fdatasync(fd); });
    case IoRequest::Kind::kAllocate:
      return retry([&] {
        return fallocate(fd, allocate_flags(request.mode), offset,
                         static_cast<off_t>(request.length));
      });
  }
  return -EINVAL;
}

void run_request(void* context) {
  auto* request = static_cast<IoRequest*>(context);
  perform(*request);
  wake(request->waiter);
}

}  // namespace

std::span<const iovec> request_iovecs(IoRequest& request) {
  BufferList buffers = request.buffers;
  if (buffers.size() > kMaxTransferBytes) buffers = buffers.sub(0, kMaxTransferBytes);
  size_t count = buffers.piece_count();
  if (count <= std::size(request.scratch.iov))
    return {request.scratch.iov, buffers.fill(request.scratch.iov)};
  if (count > kMaxPieces) count = kMaxPieces;
  if (auto exact = buffers.whole_pieces(); !exact.empty()) return exact.first(count);
  request.many = std::make_unique_for_overwrite<iovec[]>(count);
  return {request.many.get(), buffers.fill({request.many.get(), count})};
}

int allocate_flags(AllocateMode mode) {
  switch (mode) {
    case AllocateMode::kPunchHole:
    case AllocateMode::kZeroRangeUnmap: return FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    case AllocateMode::kZeroRange: return FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
    case AllocateMode::kAllocate: return 0;
    case AllocateMode::kAllocateKeepSize: return FALLOC_FL_KEEP_SIZE;
  }
  return 0;
}

void perform(IoRequest& request) { request.result = call_for(request); }

void submit_blocking(WorkerPool& workers, IoRequest& request) {
  request.job = {.run = run_request, .context = &request};
  workers.run(request.job);
}

}  // namespace platter::io
