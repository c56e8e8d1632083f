// Files, as the operating system or a simulated disk gives them. Calls here may block: a task
// makes the slow ones through Reactor::call. Data I/O goes through the reactor's operations
// (io/file_io.h), not through here.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "platter/error.h"

namespace platter::io {

struct OpenFlags {
  bool write = false;
  bool create = false;     // create if missing
  bool exclusive = false;  // with create: fail if it exists
  bool truncate = false;
  bool direct = false;  // O_DIRECT
};

enum class FileKind { kRegular, kBlockDevice, kCharacterDevice, kOther };

struct FileInfo {
  FileKind kind;
  uint64_t size;       // bytes; of a block device too
  uint64_t allocated;  // bytes that the file occupies on its medium
  uint64_t device;     // identity: device and inode number
  uint64_t inode;
  uint32_t logical_block_size;  // of a block device; 1 for a regular file
};

// Only kAllocate grows a file. ENOTSUP: the medium cannot do it so.
enum class AllocateMode : uint8_t {
  kPunchHole,       // deallocate, reads zero
  kZeroRange,       // reads zero, stays allocated
  kZeroRangeUnmap,  // reads zero, deallocated if that is how the medium zeroes best
  kAllocate,        // reserve space, may grow the file
  kAllocateKeepSize
};

enum class LockKind { kShared, kExclusive, kNone };

class MemoryWriter;

// One open file. Thread-safe. Closed by its destructor.
class File {
 public:
  virtual ~File() = default;

  virtual Result<FileInfo> info() = 0;
  virtual Result<void> truncate(uint64_t size) = 0;
  // The first byte of data (or of a hole) at or after `offset`; the file's end counts as a hole.
  // nullopt: no data after `offset`. ENOTSUP: the file system cannot tell.
  virtual Result<std::optional<uint64_t>> seek_data(uint64_t offset) = 0;
  virtual Result<std::optional<uint64_t>> seek_hole(uint64_t offset) = 0;
  // Byte-range locks that belong to this open file (OFD). EAGAIN: somebody holds a conflicting one.
  virtual Result<void> lock(uint64_t offset, uint64_t length, LockKind kind) = 0;
  // Whether a lock of `kind` could be had (F_OFD_GETLK): EAGAIN if not. Takes nothing.
  virtual Result<void> test_lock(uint64_t offset, uint64_t length, LockKind kind) = 0;
  // The alignment that offsets, lengths and memory must have; 1 unless opened direct.
  virtual uint32_t io_alignment() const = 0;
  // The file is in memory and nowhere else (tmpfs): its data is had by copying, with no medium to
  // wait for.
  virtual bool in_memory() const { return false; }
  // How such a file is written to; or null.
  virtual MemoryWriter* memory_writer() { return nullptr; }
  // The descriptor, or -1 for a simulated file.
  virtual int descriptor() const = 0;
  // Tells this file from every other one of this machine, one that takes its name or its place
  // later included, while the machine runs. Empty: it cannot be told.
  virtual std::string identity() { return {}; }
};

class FileSystem {
 public:
  virtual ~FileSystem() = default;
  virtual Result<std::unique_ptr<File>> open(const std::string& path, OpenFlags flags) = 0;
  virtual Result<FileInfo> info(const std::string& path) = 0;
  virtual Result<void> remove(const std::string& path) = 0;
};

// The real one. Stateless.
FileSystem& system_files();

}  // namespace platter::io
