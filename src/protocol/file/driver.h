// file: a regular file or a block device of this machine.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "block/driver.h"
#include "io/file.h"
#include "io/file_io.h"
#include "protocol/file/image_locks.h"

namespace platter::protocol {

class FileDriver final : public block::Driver,
                         public block::Resizable,
                         public block::RangeCopier,
                         public block::Reopenable {
 public:
  struct Setup {
    std::string path;
    io::IoMode mode;
    bool direct = false;
    bool locking = true;
    bool writable = false;    // `file` is open for writing
    bool may_reopen = false;  // for writing, when the first writer comes
    io::FileSystem* files = nullptr;
    block::Node* node = nullptr;
  };
  FileDriver(std::unique_ptr<io::File> file, const io::FileInfo& info, Setup setup);

  uint64_t size() const override { return size_.load(std::memory_order_acquire); }
  std::string file_identity() override { return file().identity(); }
  block::Limits limits() const override;

  io::Task<Result<void>> read(uint64_t offset, io::BufferList buffers) override;
  io::Task<Result<void>> write(uint64_t offset, io::BufferList buffers,
                               block::WriteFlags flags) override;
  io::Task<Result<void>> zero(uint64_t offset, uint64_t length, block::WriteFlags flags) override;
  io::Task<Result<void>> discard(uint64_t offset, uint64_t length) override;
  io::Task<Result<void>> flush() override;
  io::Task<Result<block::BlockStatus>> status(uint64_t offset, uint64_t length,
                                              block::StatusDetail detail) override;
  io::Task<Result<uint64_t>> allocated_size() override;
  bool zero_initialised() const override { return kind_ == io::FileKind::kRegular; }
  base::Json statistics() const override;
  Result<void> set_permissions(block::Permissions needed, block::Permissions shared) override;

  Resizable* resizable() override { return this; }
  RangeCopier* range_copier() override { return this; }
  Reopenable* reopenable() override { return this; }
  io::Task<Result<void>> reopen(base::OptionSet options, block::OpenFlags flags) override;
  io::Task<Result<void>> copy_range(block::Driver& source, uint64_t source_offset, uint64_t offset,
                                    uint64_t length) override;
  io::Task<Result<void>> resize(uint64_t size, block::Preallocation preallocation,
                                bool exact) override;

 private:
  struct Extent {
    uint64_t begin = 0;
    uint64_t end = 0;
  };

  io::File& file() const { return *current_.load(std::memory_order_acquire); }
  io::Task<Result<void>> write_growing(uint64_t offset, io::BufferList buffers, bool durable);
  io::Task<Result<void>> grow_with_zeroes(uint64_t end);
  io::Task<Result<void>> zero_inside(uint64_t offset, uint64_t length, bool unmap);
  void grown_to(uint64_t end);
  void forget_extent();
  Result<void> open_for_writing() { return open_anew(true, setup_.direct); }
  Result<void> open_anew(bool writable, bool direct);
  Result<block::BlockStatus> find_extent(uint64_t offset, uint64_t length,
                                         block::StatusDetail detail);

  std::vector<std::unique_ptr<io::File>>
      files_;  // the last one is in use, the first one holds the locks
  std::atomic<io::File*> current_;
  Setup setup_;
  const io::FileKind kind_;
  uint32_t alignment_;
  std::atomic<uint64_t> size_;
  bool writable_;
  bool has_writer_ = false;
  std::optional<ImageLocks> locks_;

  // What the medium turned out not to support is not tried again.
  std::atomic<bool> punches_{true};
  std::atomic<bool> zeroes_{true};
  std::atomic<bool> copies_{true};
  std::atomic<bool> sync_failed_{false};

  std::atomic<uint64_t> discards_{0}, discarded_bytes_{0}, failed_discards_{0};

  std::mutex extent_mutex_;
  Extent data_extent_;  // the last one that a status found
};

}  // namespace platter::protocol
