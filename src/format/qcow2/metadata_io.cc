#include "format/qcow2/metadata_io.h"

#include <algorithm>

#include "base/try.h"
#include "io/sync.h"

namespace platter::format::qcow2 {

namespace {
constexpr uint64_t kReadBytes = uint64_t{1} << 20;   // of one read, at least one table
constexpr uint64_t kBatchBytes = uint64_t{8} << 20;  // in flight
}  // namespace

// No coroutine: a guest's read passes here.
io::Task<Result<void>> read_padded(block::Child& file, uint64_t offset, io::BufferList buffer) {
  const uint64_t size = file.size();
  if (offset <= size && buffer.size() <= size - offset) [[likely]]
    return file.read(offset, buffer);
  const uint64_t present = offset < size ? size - offset : 0;
  buffer.sub(present, buffer.size() - present).fill_zero();
  if (present == 0) return io::Task<Result<void>>::ready();
  return file.read(offset, buffer.sub(0, present));
}

TableReader::TableReader(block::Child& file, std::span<const uint64_t> offsets, uint64_t table_size)
    : file_(file),
      offsets_(offsets),
      table_size_(table_size),
      buffer_(std::min(kBatchBytes, std::max<uint64_t>(offsets.size(), 1) * table_size)) {}

io::Task<Result<void>> TableReader::read_extent(size_t buffer_offset, uint64_t offset,
                                                uint64_t length) {
  return read_padded(file_, offset, buffer_.view(buffer_offset, length));
}

io::Task<TableReader::Batch> TableReader::next() {
  const size_t tables_per_read = std::max<uint64_t>(kReadBytes / table_size_, 1);
  batch_ = {batch_.first + batch_.count, 0};
  batch_.count = std::min<size_t>(offsets_.size() - batch_.first, buffer_.size() / table_size_);
  extents_.clear();
  for (size_t i = batch_.first; i < batch_.first + batch_.count; ++i) {
    if (!extents_.empty()) {
      Extent& last = extents_.back();
      if (last.count < tables_per_read && offsets_[i] == last.offset + last.count * table_size_) {
        ++last.count;
        continue;
      }
    }
    extents_.push_back({offsets_[i], i, 1, {}});
  }
  std::vector<io::Task<Result<void>>> reads;
  for (const Extent& extent : extents_) {
    reads.push_back(read_extent((extent.first - batch_.first) * table_size_, extent.offset,
                                extent.count * table_size_));
  }
  auto results = co_await io::when_all(std::move(reads));
  for (size_t i = 0; i < extents_.size(); ++i) extents_[i].status = std::move(results[i]);
  co_return batch_;
}

Result<std::span<const uint8_t>> TableReader::table(size_t index) const {
  const auto after = std::ranges::upper_bound(extents_, index, {}, &Extent::first);
  const Extent& extent = *std::prev(after);
  if (!extent.status) return std::unexpected(extent.status.error());
  return std::span<const uint8_t>(buffer_.data() + (index - batch_.first) * table_size_,
                                  table_size_);
}

}  // namespace platter::format::qcow2
