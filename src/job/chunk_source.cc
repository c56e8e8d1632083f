#include "job/chunk_source.h"

#include <algorithm>

#include "base/math.h"
#include "base/try.h"

namespace platter::job {
namespace {

// A gap of zeroes up to this long is read along with the data around it.
constexpr uint64_t kMaxBridgedGap = 32 << 10;
// What is read as data where its status cannot be had, before it is asked for again.
constexpr uint64_t kUnknownStep = 64 << 10;
// One zero request: bounds the time until a cancellation is noticed.
constexpr uint64_t kMaxZeroStep = uint64_t{256} << 20;

}  // namespace

ChunkSource::ChunkSource(const CopyOptions& options, Settings settings)
    : options_(options), settings_(settings) {
  PLATTER_ASSERT(base::is_power_of_two(settings.buffer_size));
  PLATTER_ASSERT(base::is_power_of_two(settings.granularity));
  PLATTER_ASSERT(settings.granularity <= settings.buffer_size);
  for (const CopySource& source : options.sources) {
    uint64_t length = source.backend->size();
    if (length == 0) continue;
    extents_.push_back({source, size_, size_ + length});
    size_ += length;
  }
}

const ChunkSource::Extent& ChunkSource::extent_at(uint64_t offset) const {
  auto after = std::upper_bound(extents_.begin(), extents_.end(), offset,
                                [](uint64_t at, const Extent& extent) { return at < extent.end; });
  PLATTER_ASSERT(after != extents_.end() && offset >= after->begin);
  return *after;
}

ChunkSource::Kind ChunkSource::kind_of(const CopySource& source, const block::BlockStatus& status,
                                       uint64_t offset) const {
  const bool backed = offset < options_.target_backing_size;
  if (source.base != nullptr && backed && !status.allocated) return Kind::kSkip;
  if (status.zero && options_.sparse_size != 0) {
    return options_.target_reads_zero && !backed ? Kind::kSkip : Kind::kZero;
  }
  return Kind::kData;
}

io::Task<Result<ChunkSource::Run>> ChunkSource::run_at(uint64_t offset) {
  const Extent& extent = extent_at(offset);
  uint64_t limit = extent.end;
  const bool backed = offset < options_.target_backing_size;
  if (backed) limit = std::min(limit, options_.target_backing_size);

  block::Node* base = backed ? extent.source.base : nullptr;
  auto status = co_await extent.source.backend->status_above(
      base, offset - extent.begin, limit - offset, block::StatusDetail::kPrecise);
  if (!status && options_.salvage) {
    options_.salvage(offset, status.error());
    const uint64_t step = base::align_down(offset, kUnknownStep) + kUnknownStep;
    co_return shape({Kind::kData, std::min(step, limit)}, offset,
                    settings_.whole_granules ? size_ : limit);
  }
  if (!status) {
    co_return std::unexpected(std::move(status).error().with_context(
        "error while reading block status at byte " + std::to_string(offset)));
  }
  PLATTER_ASSERT(status->length != 0 && status->length <= limit - offset);
  const Run run{kind_of(extent.source, *status, offset), offset + status->length};
  if (settings_.whole_granules) co_return shape(run, offset, size_);
  // Where nothing shows through from below, runs are shaped to what the target handles best.
  if (run.end == limit || (extent.source.base != nullptr && backed)) co_return run;
  co_return shape(run, offset, limit);
}

// Data grows to whole granules, what is not data shrinks to them, if any is left; up to `limit`.
ChunkSource::Run ChunkSource::shape(Run run, uint64_t offset, uint64_t limit) const {
  if (run.end == limit) return run;
  if (run.kind != Kind::kData) {
    const uint64_t end = base::align_down(run.end, settings_.granularity);
    if (end > offset) return {run.kind, end};
  }
  return {Kind::kData, std::min(base::align_up(run.end, settings_.granularity), limit)};
}

io::Task<Result<void>> ChunkSource::extend_data(uint64_t limit) {
  while (run_.end < limit) {
    if (!ahead_) {
      PLATTER_CO_ASSIGN(ahead_, co_await run_at(run_.end));
    }
    const bool gap = ahead_->kind != Kind::kData;
    const bool bridged = options_.sparse_size != 0 && options_.target_backing_size == 0 &&
                         ahead_->end - run_.end <= kMaxBridgedGap && ahead_->end < limit;
    if (gap && !bridged) break;
    run_.end = ahead_->end;
    ahead_.reset();
  }
  co_return Result<void>{};
}

io::Task<Result<std::optional<Chunk>>> ChunkSource::next() {
  auto lock = co_await mutex_.lock();
  while (position_ < size_ && !stopped_.load(std::memory_order_relaxed)) {
    if (position_ == run_.end) {
      if (ahead_) {
        run_ = *ahead_;
        ahead_.reset();
      } else {
        PLATTER_CO_ASSIGN(run_, co_await run_at(position_));
      }
    }
    if (run_.kind == Kind::kSkip) {
      skipped_ += run_.end - position_;
      position_ = run_.end;
      continue;
    }
    uint64_t end;
    if (run_.kind == Kind::kZero) {
      end = std::min(run_.end, position_ + kMaxZeroStep);
    } else {
      uint64_t limit = base::align_down(position_, settings_.buffer_size) + settings_.buffer_size;
      limit = std::min(limit, settings_.whole_granules ? size_ : extent_at(position_).end);
      PLATTER_CO_TRY(co_await extend_data(limit));
      end = std::min(run_.end, limit);
    }
    Chunk chunk{.offset = position_,
                .length = end - position_,
                .zero = run_.kind == Kind::kZero,
                .sequence = sequence_++};
    position_ = end;
    co_return chunk;
  }
  co_return std::nullopt;
}

std::pair<block::Backend*, uint64_t> ChunkSource::place(uint64_t offset) const {
  const Extent& extent = extent_at(offset);
  return {extent.source.backend, offset - extent.begin};
}

io::Task<Result<void>> ChunkSource::read(uint64_t offset, io::BufferList buffers) const {
  while (!buffers.empty()) {
    const Extent& extent = extent_at(offset);
    const size_t length = std::min<uint64_t>(extent.end - offset, buffers.size());
    PLATTER_CO_TRY(
        co_await extent.source.backend->read(offset - extent.begin, buffers.sub(0, length)));
    buffers = buffers.sub(length, buffers.size() - length);
    offset += length;
  }
  co_return Result<void>{};
}

io::Task<Result<uint64_t>> ChunkSource::count_data() {
  uint64_t bytes = 0;
  for (uint64_t offset = 0; offset < size_;) {
    PLATTER_CO_ASSIGN(Run run, co_await run_at(offset));
    if (run.kind == Kind::kData) bytes += run.end - offset;
    offset = run.end;
  }
  co_return bytes;
}

}  // namespace platter::job
