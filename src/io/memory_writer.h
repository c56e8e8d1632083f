// Writes to a file in memory (tmpfs). The kernel lets one of them at a time into such a file: the
// others spin for its lock. Here who finds another one at it fills the holes of the file through a
// mapping instead, where no such lock is taken (userfaultfd(2), UFFDIO_COPY). What is no hole, or
// where the system does not allow that, is written as ever. Inside io/ only.
//
// Thread-safe.
#pragma once

#include <sys/uio.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <span>

namespace platter::io {

class MemoryWriter {
 public:
  explicit MemoryWriter(int fd) : fd_(fd) {}  // which outlives it
  ~MemoryWriter();
  MemoryWriter(const MemoryWriter&) = delete;
  MemoryWriter& operator=(const MemoryWriter&) = delete;

  // As pwritev(2): how many bytes were written, at least one; or -errno.
  int64_t write(std::span<const iovec> pieces, uint64_t offset);
  // Without looking whether another thread is at it: -errno if not even the beginning could be
  // filled. `piece` and `offset` are of whole pages.
  int64_t fill_hole(const iovec& piece, uint64_t offset);

 private:
  void open_faults();

  int fd_;
  std::atomic<bool> busy_{false};
  std::once_flag faults_opened_;
  int faults_ = -1;                        // a userfaultfd; -1: not allowed here
  std::atomic<unsigned> plain_writes_{0};  // still to be made without a look for holes
};

}  // namespace platter::io
