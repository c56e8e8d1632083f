#include "io/memory_writer.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace platter::io {
namespace {

// Below, a mapping costs more than waiting for the file.
constexpr size_t kMinFilledBytes = size_t{128} << 10;
// Where there was no hole, more of the file may be full: so many writes are made without a look.
constexpr unsigned kPlainWrites = 32;
// The lock is let go of in between: whoever makes the file grow needs it for a page only.
constexpr size_t kWrittenAtOnce = size_t{128} << 10;

size_t page_bytes() {
  static const auto bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

int64_t write_plainly(int fd, std::span<const iovec> pieces, uint64_t offset) {
  for (;;) {
    const ssize_t written =
        pwritev(fd, pieces.data(), static_cast<int>(pieces.size()), static_cast<off_t>(offset));
    if (written >= 0) return written;
    if (errno != EINTR) return -errno;
  }
}

int64_t write_by_parts(int fd, const iovec& piece, uint64_t offset) {
  size_t done = 0;
  while (done < piece.iov_len) {
    const iovec part = {static_cast<uint8_t*>(piece.iov_base) + done,
                        std::min(piece.iov_len - done, kWrittenAtOnce)};
    const int64_t written = write_plainly(fd, {&part, 1}, offset + done);
    if (written <= 0) return done != 0 ? static_cast<int64_t>(done) : written;
    done += static_cast<size_t>(written);
  }
  return static_cast<int64_t>(done);
}

// Part of a file, mapped so that its holes can be filled.
class Window {
 public:
  Window(int fd, int faults, uint64_t offset, size_t length) : length_(length) {
    memory_ =
        mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, static_cast<off_t>(offset));
    if (memory_ == MAP_FAILED) return;
    uffdio_register range{};
    range.range = {.start = address(), .len = length};
    range.mode = UFFDIO_REGISTER_MODE_MISSING;
    registered_ = ioctl(faults, UFFDIO_REGISTER, &range) == 0;
  }
  ~Window() {
    if (memory_ != MAP_FAILED) munmap(memory_, length_);
  }
  Window(const Window&) = delete;
  Window& operator=(const Window&) = delete;

  // How many bytes from the beginning on, whole pages; or -errno.
  int64_t fill(int faults, const void* source) {
    if (memory_ == MAP_FAILED || !registered_) return -EOPNOTSUPP;
    uffdio_copy copy{};
    copy.dst = address();
    copy.src = reinterpret_cast<uintptr_t>(source);
    copy.len = length_;
    if (ioctl(faults, UFFDIO_COPY, &copy) == 0) return static_cast<int64_t>(length_);
    return copy.copy > 0 ? static_cast<int64_t>(copy.copy) : -errno;
  }

 private:
  uintptr_t address() const { return reinterpret_cast<uintptr_t>(memory_); }
  void* memory_;
  size_t length_;
  bool registered_ = false;
};

}  // namespace

MemoryWriter::~MemoryWriter() {
  if (faults_ >= 0) close(faults_);
}

void MemoryWriter::open_faults() {
  const long opened = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
  if (opened < 0) return;
  const int fd = static_cast<int>(opened);
  uffdio_api api{};
  api.api = UFFD_API;
  if (ioctl(fd, UFFDIO_API, &api) != 0) {
    close(fd);
    return;
  }
  faults_ = fd;
}

int64_t MemoryWriter::fill_hole(const iovec& piece, uint64_t offset) {
  std::call_once(faults_opened_, [this] { open_faults(); });
  struct stat status;
  if (faults_ < 0 || fstat(fd_, &status) != 0) return -EOPNOTSUPP;
  size_t length = piece.iov_len;
  if (offset + length > static_cast<uint64_t>(status.st_size)) {
    // A mapping does not make a file grow: the last page does.
    length -= page_bytes();
    const iovec last = {static_cast<uint8_t*>(piece.iov_base) + length, page_bytes()};
    const int64_t grown = write_plainly(fd_, {&last, 1}, offset + length);
    if (grown != static_cast<int64_t>(page_bytes())) return grown < 0 ? grown : -ENOSPC;
  }
  const int64_t filled = Window(fd_, faults_, offset, length).fill(faults_, piece.iov_base);
  return filled == static_cast<int64_t>(length) ? static_cast<int64_t>(piece.iov_len) : filled;
}

int64_t MemoryWriter::write(std::span<const iovec> pieces, uint64_t offset) {
  const bool alone = !busy_.exchange(true, std::memory_order_relaxed);
  if (!alone && pieces.size() == 1 && pieces[0].iov_len >= kMinFilledBytes &&
      (offset | pieces[0].iov_len) % page_bytes() == 0) {
    const unsigned plain = plain_writes_.load(std::memory_order_relaxed);
    if (plain == 0) {
      const int64_t filled = fill_hole(pieces[0], offset);
      if (filled > 0) return filled;
      plain_writes_.store(kPlainWrites, std::memory_order_relaxed);
    } else {
      plain_writes_.store(plain - 1, std::memory_order_relaxed);
    }
  }
  const int64_t written = pieces.size() == 1 ? write_by_parts(fd_, pieces[0], offset)
                                             : write_plainly(fd_, pieces, offset);
  if (alone) busy_.store(false, std::memory_order_relaxed);
  return written;
}

}  // namespace platter::io
