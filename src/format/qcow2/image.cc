#include "format/qcow2/image.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/bytes.h"
#include "base/try.h"

namespace platter::format::qcow2 {

Image::Image(block::Node& node_, block::Child& file_, const base::Log& log_, Header header_)
    : node(&node_),
      file(&file_),
      data(&file_),
      log(&log_),
      header(std::move(header_)),
      geometry(header.geometry()),
      metadata_unit(std::clamp<uint64_t>(file->node().limits().request_alignment, kSectorBytes,
                                         geometry.cluster_size())),
      guard(geometry.cluster_bits) {}

Error Image::corrupt_error() const {
  return Error(EIO, fmt::format("qcow2: Image '{}' is corrupt; further writes are refused",
                                node->filename()));
}

io::Task<Result<void>> Image::flush() {
  if (data != file) PLATTER_CO_TRY(co_await data->flush());
  co_return co_await file->flush();
}

io::Task<Error> Image::corruption(std::string message) {
  Error error(EIO, fmt::format("qcow2: Image is corrupt: {}", message));
  if (corrupt.exchange(true)) co_return error;
  const bool marks = writable && geometry.version >= 3;
  log->error(fmt::format("{}: qcow2: {}: {}", node->filename(),
                         marks ? "Marking image as corrupt" : "Image is corrupt", message));
  if (marks) {
    auto written = co_await change_incompatible(kCorrupt, 0);
    if (!written) {
      log->error(fmt::format("{}: qcow2: Could not mark the image corrupt: {}", node->filename(),
                             written.error().message()));
    }
  }
  co_return error;
}

io::Task<Result<void>> Image::check_overlap(uint64_t offset, uint64_t bytes, Structures own) {
  const std::string_view obstacle = guard.obstacle(offset, bytes, own);
  if (obstacle.empty()) [[likely]]
    return io::Task<Result<void>>::ready(Result<void>{});
  return refuse_overlap(obstacle);
}

io::Task<Result<void>> Image::refuse_overlap(std::string_view obstacle) {
  co_return std::unexpected(co_await corruption(
      fmt::format("Preventing invalid write on metadata (overlaps with {})", obstacle)));
}

io::Task<Result<void>> Image::change_incompatible(uint64_t set, uint64_t clear) {
  auto lock = co_await features.lock();
  const uint64_t bits = (header.incompatible | set) & ~clear;
  if (bits == header.incompatible) co_return Result<void>{};
  PLATTER_CO_TRY(co_await write_header_u64(field::kIncompatible, bits));
  header.incompatible = bits;
  co_return Result<void>{};
}

io::Task<Result<void>> Image::replace_header_fields(uint64_t offset,
                                                    std::span<const uint8_t> before,
                                                    std::span<const uint8_t> after) {
  auto written = co_await write_file(offset, after);
  if (written) written = co_await file->flush();
  if (written) co_return written;
  auto restored = co_await write_file(offset, before);
  if (restored) restored = co_await file->flush();
  if (!restored && !corrupt.exchange(true)) {
    log->error(fmt::format("{}: qcow2: Could not replace a table, nor keep the old one: {}",
                           node->filename(), restored.error().message()));
  }
  co_return written;
}

io::Task<Result<void>> Image::write_header_u64(uint64_t offset, uint64_t value) {
  std::array<uint8_t, 8> bytes;
  base::store_big<uint64_t>(bytes, 0, value);
  co_return co_await write_file(offset, bytes);
}

io::Task<Result<void>> Image::reload_places() {
  PLATTER_CO_ASSIGN(const Header now, co_await read_header(*file, {}));
  header.l1_table_offset = now.l1_table_offset;
  header.refcount_table_offset = now.refcount_table_offset;
  header.snapshots_offset = now.snapshots_offset;
  header.crypto_header = now.crypto_header;
  if (header.bitmaps && now.bitmaps)
    header.bitmaps->directory_offset = now.bitmaps->directory_offset;
  co_return Result<void>{};
}

io::Task<Result<void>> Image::write_file(uint64_t offset, std::span<const uint8_t> bytes) {
  // A write takes from its buffers only.
  io::AlignedBuffer copy(bytes.size());
  copy.view().copy_from(bytes);
  co_return co_await file->write(offset, copy.view());
}

void DirtyUnits::reset(uint64_t table_bytes, uint64_t unit_bytes) {
  unit_bytes_ = unit_bytes;
  units_.clear();
  marked_.assign(base::divide_round_up(table_bytes, unit_bytes), false);
}

void DirtyUnits::mark(uint64_t byte_offset) {
  const uint64_t unit = byte_offset / unit_bytes_;
  PLATTER_ASSERT(unit < marked_.size());
  if (state_ != nullptr) state_->mark(unit, content_);
  if (marked_[unit]) return;
  marked_[unit] = true;
  units_.push_back(static_cast<uint32_t>(unit));
}

std::vector<uint32_t> DirtyUnits::take() {
  std::sort(units_.begin(), units_.end());
  for (uint32_t unit : units_) {
    marked_[unit] = false;
    if (state_ != nullptr) state_->begin_write(unit);
  }
  return std::exchange(units_, {});
}

void DirtyUnits::end_write(uint64_t table_offset, std::span<const StagedWrite> writes,
                           std::span<const uint8_t> staging, bool written) {
  const uint64_t end = table_offset + marked_.size() * unit_bytes_;
  for (const StagedWrite& write : writes) {
    if (write.host_offset < table_offset || write.host_offset >= end) continue;
    const uint64_t in_table = write.host_offset - table_offset;
    if (state_ != nullptr)
      state_->end_write(in_table / unit_bytes_, written, staging.data() + write.position);
    if (!written) mark(in_table);
  }
}

void DirtyUnits::keep_in(TableState& state, TableState::Content content) {
  state_ = &state;
  content_ = std::move(content);
}

void DirtyUnits::table_is_at(uint64_t table_offset, const base::Log& log) {
  if (state_ == nullptr) return;
  auto moved = state_->moved(table_offset, marked_.size(), content_);
  if (!moved) {
    log.warning("qcow2: The state file is of no use from here on: " + moved.error().message());
  }
}

}  // namespace platter::format::qcow2
