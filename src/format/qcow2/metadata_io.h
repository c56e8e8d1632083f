// Reading tables out of the image file, before and beside the live caches.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "block/node.h"
#include "io/buffer.h"
#include "io/task.h"
#include "platter/error.h"

namespace platter::format::qcow2 {

// Fills `buffer` from `offset`; what lies past the end of the file is zero.
io::Task<Result<void>> read_padded(block::Child& file, uint64_t offset, io::BufferList buffer);

// Reads many equally large tables with a deep queue: tables that lie one after another in the file
// become one read, and several reads are in flight. Tables are delivered in the order asked.
class TableReader {
 public:
  // `offsets` and `file` outlive the reader.
  TableReader(block::Child& file, std::span<const uint64_t> offsets, uint64_t table_size);

  struct Batch {
    size_t first = 0;  // index into `offsets`
    size_t count = 0;  // 0: the end
  };
  // The next batch; the tables of the one before are gone.
  io::Task<Batch> next();
  // A table of the current batch (index into `offsets`), or why it could not be read. Valid until
  // next().
  Result<std::span<const uint8_t>> table(size_t index) const;

 private:
  struct Extent {
    uint64_t offset;
    size_t first;
    size_t count;
    Result<void> status;
  };
  io::Task<Result<void>> read_extent(size_t buffer_offset, uint64_t offset, uint64_t length);

  block::Child& file_;
  std::span<const uint64_t> offsets_;
  uint64_t table_size_;
  io::AlignedBuffer buffer_;
  std::vector<Extent> extents_;
  Batch batch_;
};

}  // namespace platter::format::qcow2
