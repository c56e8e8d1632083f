#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/stat.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>

#include "base/try.h"
#include "io/buffer.h"
#include "io/file.h"
#include "io/memory_writer.h"

namespace platter::io {
namespace {

constexpr uint32_t kMaxAlignment = 4096;

Result<FileInfo> describe(const struct stat& status, int fd) {
  FileInfo info{.kind = FileKind::kOther,
                .size = static_cast<uint64_t>(status.st_size),
                .allocated = static_cast<uint64_t>(status.st_blocks) * 512,
                .device = status.st_dev,
                .inode = status.st_ino,
                .logical_block_size = 1};
  if (S_ISREG(status.st_mode)) {
    info.kind = FileKind::kRegular;
  } else if (S_ISCHR(status.st_mode)) {
    info.kind = FileKind::kCharacterDevice;
  } else if (S_ISBLK(status.st_mode)) {
    info.kind = FileKind::kBlockDevice;
    info.device = status.st_rdev;  // whichever name the device was opened by
    info.inode = 0;
    if (fd < 0) return info;
    int block_size = 0;
    if (ioctl(fd, BLKGETSIZE64, &info.size) != 0 || ioctl(fd, BLKSSZGET, &block_size) != 0)
      return fail_errno(errno);
    info.logical_block_size = static_cast<uint32_t>(block_size);
  }
  return info;
}

// What the kernel wants of direct I/O: asked where it can tell, else tried out.
uint32_t probe_alignment(int fd, const FileInfo& info) {
  uint32_t known = info.kind == FileKind::kBlockDevice ? info.logical_block_size : 0;
#ifdef STATX_DIOALIGN
  struct statx extended{};
  if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &extended) == 0 &&
      (extended.stx_mask & STATX_DIOALIGN) != 0 && extended.stx_dio_offset_align != 0) {
    uint32_t both = extended.stx_dio_offset_align > extended.stx_dio_mem_align
                        ? extended.stx_dio_offset_align
                        : extended.stx_dio_mem_align;
    if (both > known) known = both;
  }
#endif
  if (known != 0) return known < kMaxAlignment ? known : kMaxAlignment;
  if (info.size == 0) return kMaxAlignment;  // reads at the end succeed whatever their alignment
  AlignedBuffer buffer(kMaxAlignment * 2);
  for (uint32_t alignment = 1; alignment < kMaxAlignment; alignment *= 2) {
    uint32_t length = alignment;
    if (pread(fd, buffer.data() + alignment, length, 0) >= 0) return alignment;
    if (alignment == 1) alignment = 256;
  }
  return kMaxAlignment;
}

// A device has its name in such a file system, and its data elsewhere.
bool is_in_memory(int fd) {
  struct stat status;
  struct statfs system;
  return fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && fstatfs(fd, &system) == 0 &&
         (system.f_type == TMPFS_MAGIC || system.f_type == RAMFS_MAGIC);
}

class SystemFile final : public File {
 public:
  explicit SystemFile(int fd) : fd_(fd), in_memory_(is_in_memory(fd)), memory_writer_(fd) {}
  ~SystemFile() override { close(fd_); }
  void set_alignment(uint32_t alignment) { alignment_ = alignment; }

  Result<FileInfo> info() override {
    struct stat status;
    if (fstat(fd_, &status) != 0) return fail_errno(errno);
    return describe(status, fd_);
  }

  Result<void> truncate(uint64_t size) override {
    PLATTER_ASSIGN(FileInfo now, info());
    if (now.kind != FileKind::kRegular)
      return fail(ENOTSUP, "The size of a device cannot be changed");
    int status;
    do {
      status = ftruncate(fd_, static_cast<off_t>(size));
    } while (status != 0 && errno == EINTR);
    if (status != 0) return fail_errno(errno);
    return {};
  }

  Result<std::optional<uint64_t>> seek_data(uint64_t offset) override {
    return seek(offset, SEEK_DATA);
  }
  Result<std::optional<uint64_t>> seek_hole(uint64_t offset) override {
    return seek(offset, SEEK_HOLE);
  }

  Result<void> lock(uint64_t offset, uint64_t length, LockKind kind) override {
    struct flock range = lock_range(offset, length, kind);
    if (fcntl(fd_, F_OFD_SETLK, &range) == 0) return {};
    return fail_errno(errno == EACCES ? EAGAIN : errno);
  }

  Result<void> test_lock(uint64_t offset, uint64_t length, LockKind kind) override {
    struct flock range = lock_range(offset, length, kind);
    if (fcntl(fd_, F_OFD_GETLK, &range) != 0) return fail_errno(errno);
    if (range.l_type == F_UNLCK) return {};
    return fail_errno(EAGAIN);
  }

  uint32_t io_alignment() const override { return alignment_; }
  bool in_memory() const override { return in_memory_; }
  MemoryWriter* memory_writer() override { return in_memory_ ? &memory_writer_ : nullptr; }
  int descriptor() const override { return fd_; }
  std::string identity() override {
    struct statx status{};
    if (statx(fd_, "", AT_EMPTY_PATH, STATX_TYPE | STATX_INO | STATX_BTIME, &status) != 0)
      return {};
    if (S_ISBLK(status.stx_mode))
      return fmt::format("device {}:{}", status.stx_rdev_major, status.stx_rdev_minor);
    std::string identity =
        fmt::format("file {}:{} {}", status.stx_dev_major, status.stx_dev_minor, status.stx_ino);
    if ((status.stx_mask & STATX_BTIME) != 0)
      identity += fmt::format(" {}.{:09}", status.stx_btime.tv_sec, status.stx_btime.tv_nsec);
    return identity;
  }

 private:
  // Devices have no holes that seeking could find; ENOTSUP says so.
  Result<std::optional<uint64_t>> seek(uint64_t offset, int whence) {
    off_t found = lseek(fd_, static_cast<off_t>(offset), whence);
    if (found >= 0) {
      struct stat status;
      if (fstat(fd_, &status) != 0) return fail_errno(errno);
      if (!S_ISREG(status.st_mode)) return fail_errno(ENOTSUP);
      return static_cast<uint64_t>(found);
    }
    if (errno == ENXIO) return std::optional<uint64_t>();
    if (errno == EINVAL || errno == ESPIPE) return fail_errno(ENOTSUP);
    return fail_errno(errno);
  }

  static struct flock lock_range(uint64_t offset, uint64_t length, LockKind kind) {
    struct flock range{};
    range.l_type = kind == LockKind::kNone     ? F_UNLCK
                   : kind == LockKind::kShared ? F_RDLCK
                                               : F_WRLCK;
    range.l_whence = SEEK_SET;
    range.l_start = static_cast<off_t>(offset);
    range.l_len = static_cast<off_t>(length);
    return range;  // l_pid stays 0, as locks of an open file want it
  }

  int fd_;
  bool in_memory_;
  MemoryWriter memory_writer_;
  uint32_t alignment_ = 1;
};

class SystemFiles final : public FileSystem {
 public:
  Result<std::unique_ptr<File>> open(const std::string& path, OpenFlags flags) override {
    // A pipe nobody writes to must not keep us here: what it is, is told after it has been opened.
    int mode = O_CLOEXEC | O_NONBLOCK | (flags.write ? O_RDWR : O_RDONLY);
    if (flags.create) mode |= O_CREAT;
    if (flags.exclusive) mode |= O_EXCL;
    if (flags.truncate) mode |= O_TRUNC;
    if (flags.direct) mode |= O_DIRECT;
    int fd;
    do {
      fd = ::open(path.c_str(), mode, 0644);
    } while (fd < 0 && errno == EINTR);
    if (fd < 0) return fail_errno(errno);
    auto file = std::make_unique<SystemFile>(fd);
    const int status_flags = fcntl(fd, F_GETFL);
    if (status_flags < 0 || fcntl(fd, F_SETFL, status_flags & ~O_NONBLOCK) != 0)
      return fail_errno(errno);
    if (flags.direct) {
      PLATTER_ASSIGN(FileInfo info, file->info());
      file->set_alignment(probe_alignment(fd, info));
    }
    return file;
  }

  Result<FileInfo> info(const std::string& path) override {
    struct stat status;
    if (stat(path.c_str(), &status) != 0) return fail_errno(errno);
    if (!S_ISBLK(status.st_mode)) return describe(status, -1);
    PLATTER_ASSIGN(auto file, open(path, {}));
    return file->info();
  }

  Result<void> remove(const std::string& path) override {
    if (unlink(path.c_str()) != 0) return fail_errno(errno);
    return {};
  }
};

}  // namespace

FileSystem& system_files() {
  static SystemFiles files;
  return files;
}

}  // namespace platter::io
