#include "job/copy_engine.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <mutex>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "base/math.h"
#include "base/try.h"
#include "io/buffer.h"
#include "job/chunk_source.h"
#include "job/pace.h"
#include "job/request_batch.h"
#include "job/write_turns.h"

namespace platter::job {
namespace {

constexpr uint64_t kDefaultBufferSize = 1 << 20;
// Clusters are written whole; the largest cluster of any format fits.
constexpr uint64_t kMaxBufferSize = 2 << 20;

constexpr uint64_t kSalvagedBytes = 512;

uint64_t choose_granularity(const CopyOptions& options) {
  const block::Limits& limits = options.target->limits();
  if (options.compressed) return limits.compressed_alignment;
  uint64_t granularity = std::max<uint64_t>(limits.zero_alignment, limits.request_alignment);
  granularity = std::max<uint64_t>(granularity, 1);
  return base::is_power_of_two(granularity) ? std::min(granularity, kMaxBufferSize) : 1;
}

uint64_t choose_buffer_size(const CopyOptions& options) {
  uint64_t size = options.buffer_size != 0 ? options.buffer_size : kDefaultBufferSize;
  return std::max(size, choose_granularity(options));
}

class Copy {
 public:
  explicit Copy(CopyOptions options)
      : options_(std::move(options)),
        granularity_(choose_granularity(options_)),
        buffer_size_(choose_buffer_size(options_)),
        chunks_(options_, {.buffer_size = buffer_size_,
                           .granularity = granularity_,
                           .whole_granules = options_.compressed}),
        pace_(options_.bytes_per_second) {
    zero_block_ = base::divide_round_up(options_.sparse_size, granularity_) * granularity_;
    zero_block_ = std::min(zero_block_, buffer_size_);
  }

  io::Task<Result<CopyStatistics>> run();

 private:
  enum class Step { kRead, kWrite };

  io::Task<bool> worker();
  io::Task<Result<void>> read_data(uint64_t offset, io::BufferList buffers);
  io::Task<Result<void>> salvage(uint64_t offset, io::BufferList buffers);
  io::Task<Result<bool>> offload(Chunk chunk);
  io::Task<void> copy_data(Chunk chunk, io::AlignedBuffer& buffer, RequestBatch& batch);
  io::Task<void> write_data(Chunk chunk, io::AlignedBuffer& buffer, RequestBatch& batch);
  void start_write(bool zero, uint64_t offset, io::BufferList bytes, RequestBatch& batch);
  uint64_t run_length(const uint8_t* data, uint64_t offset, uint64_t left, bool& zero) const;
  bool may_skip_zero(uint64_t offset) const {
    return options_.target_reads_zero && offset >= options_.target_backing_size;
  }
  void fail(Error error, uint64_t offset = UINT64_MAX);
  void fail_at(Step step, uint64_t offset, Error error);
  void advance(uint64_t bytes);

  const CopyOptions options_;
  const uint64_t granularity_;
  const uint64_t buffer_size_;
  uint64_t zero_block_;  // 0: zeroes are not looked for
  ChunkSource chunks_;
  WriteTurns turns_;
  Pace pace_;

  uint64_t total_ = 0;
  std::atomic<uint64_t> done_ = 0;
  std::atomic<uint64_t> data_bytes_ = 0;
  std::atomic<uint64_t> zero_bytes_ = 0;
  std::atomic<bool> failed_ = false;
  std::atomic<bool> offload_refused_ = false;
  std::mutex error_mutex_;
  std::optional<Error> error_;
  uint64_t error_offset_ = UINT64_MAX;
};

// Of failures that come together the one with the lowest offset is told.
void Copy::fail(Error error, uint64_t offset) {
  chunks_.stop();
  std::lock_guard lock(error_mutex_);
  failed_.store(true, std::memory_order_relaxed);
  if (error_ && offset >= error_offset_) return;
  error_.emplace(std::move(error));
  error_offset_ = offset;
}

void Copy::fail_at(Step step, uint64_t offset, Error error) {
  const char* doing =
      step == Step::kRead ? "error while reading at byte " : "error while writing at byte ";
  fail(std::move(error).with_context(doing + std::to_string(offset)), offset);
}

void Copy::advance(uint64_t bytes) {
  if (!options_.progress) return;
  uint64_t done = done_.fetch_add(bytes, std::memory_order_relaxed) + bytes;
  options_.progress(std::min(done, total_), total_);
}

// How many of the `left` bytes at `data`, which belong at `offset`, are all zero blocks, or are all
// blocks that are not zero.
uint64_t Copy::run_length(const uint8_t* data, uint64_t offset, uint64_t left, bool& zero) const {
  uint64_t length = 0;
  while (length < left) {
    uint64_t at = offset + length;
    uint64_t block = std::min(zero_block_ - at % zero_block_, left - length);
    bool block_zero = base::is_zero({data + length, block});
    if (length == 0) {
      zero = block_zero;
    } else if (block_zero != zero) {
      break;
    }
    length += block;
  }
  return length;
}

void Copy::start_write(bool zero, uint64_t offset, io::BufferList bytes, RequestBatch& batch) {
  if (zero) {
    zero_bytes_.fetch_add(bytes.size(), std::memory_order_relaxed);
    if (may_skip_zero(offset)) return;
    batch.start(offset, options_.target->zero(offset, bytes.size(), block::WriteFlag::kMayUnmap));
  } else {
    data_bytes_.fetch_add(bytes.size(), std::memory_order_relaxed);
    // A block that the end of the sources cuts, and not that of the target, is written plainly.
    const bool whole =
        bytes.size() % granularity_ == 0 || offset + bytes.size() == options_.target->size();
    const auto flags = options_.compressed && whole
                           ? block::WriteFlags(block::WriteFlag::kCompressed)
                           : block::WriteFlags();
    batch.start(offset, options_.target->write(offset, bytes, flags));
  }
}

io::Task<void> Copy::write_data(Chunk chunk, io::AlignedBuffer& buffer, RequestBatch& batch) {
  for (uint64_t at = 0; at < chunk.length;) {
    uint64_t offset = chunk.offset + at;
    uint64_t left = chunk.length - at;
    // A run of zeroes is judged by its start: what a backing file covers ends there.
    if (offset < options_.target_backing_size && !options_.compressed) {
      left = std::min(left, options_.target_backing_size - offset);
    }
    bool zero = false;
    uint64_t length = zero_block_ == 0 ? left : run_length(buffer.data() + at, offset, left, zero);
    if (batch.full()) co_await batch.finish();
    start_write(zero, offset, buffer.view(at, length), batch);
    at += length;
  }
}

io::Task<Result<void>> Copy::read_data(uint64_t offset, io::BufferList buffers) {
  auto read = co_await chunks_.read(offset, buffers);
  if (read || !options_.salvage) co_return read;
  co_return co_await salvage(offset, buffers);
}

// Halves the range until what cannot be read stands alone.
io::Task<Result<void>> Copy::salvage(uint64_t offset, io::BufferList buffers) {
  PLATTER_CO_TRY(options_.cancel.check());
  if (auto read = co_await chunks_.read(offset, buffers); !read) {
    if (buffers.size() <= kSalvagedBytes) {
      options_.salvage(offset, read.error());
      buffers.fill_zero();
    } else {
      const size_t half = base::align_up(buffers.size() / 2, kSalvagedBytes);
      PLATTER_CO_TRY(co_await salvage(offset, buffers.sub(0, half)));
      PLATTER_CO_TRY(co_await salvage(offset + half, buffers.sub(half, buffers.size() - half)));
    }
  }
  co_return Result<void>{};
}

// False: it has to be read and written.
io::Task<Result<bool>> Copy::offload(Chunk chunk) {
  if (!options_.offload || offload_refused_.load(std::memory_order_relaxed)) co_return false;
  const auto [source, source_offset] = chunks_.place(chunk.offset);
  auto from = co_await source->status_above(nullptr, source_offset, chunk.length,
                                            block::StatusDetail::kFast);
  auto to = co_await options_.target->status_above(nullptr, chunk.offset, chunk.length,
                                                   block::StatusDetail::kFast);
  if (!from || !to || from->length < chunk.length || to->length < chunk.length ||
      !from->has_host_offset || !to->has_host_offset || !from->data || from->compressed) {
    co_return false;
  }
  block::RangeCopier* copier = to->host->driver().range_copier();
  if (copier == nullptr) co_return false;
  auto copied = co_await copier->copy_range(from->host->driver(), from->host_offset,
                                            to->host_offset, chunk.length);
  if (copied) co_return true;
  if (copied.error().code() != ENOTSUP) co_return std::unexpected(std::move(copied).error());
  offload_refused_.store(true, std::memory_order_relaxed);
  co_return false;
}

io::Task<void> Copy::copy_data(Chunk chunk, io::AlignedBuffer& buffer, RequestBatch& batch) {
  auto offloaded = co_await offload(chunk);
  if (!offloaded) fail_at(Step::kWrite, chunk.offset, std::move(offloaded).error());
  if (!offloaded || *offloaded) {
    if (!options_.any_order) {
      co_await turns_.wait(chunk.sequence);
      turns_.done(chunk.sequence);
    }
    if (!offloaded) co_return;
    data_bytes_.fetch_add(chunk.length, std::memory_order_relaxed);
    co_await pace_.wait(chunk.length, options_.cancel);
    advance(chunk.length);
    co_return;
  }
  auto read = co_await read_data(chunk.offset, buffer.view(0, chunk.length));
  if (!read) fail_at(Step::kRead, chunk.offset, std::move(read).error());
  co_await pace_.wait(chunk.length, options_.cancel);
  if (!options_.any_order) co_await turns_.wait(chunk.sequence);
  if (read && !failed_.load(std::memory_order_relaxed)) co_await write_data(chunk, buffer, batch);
  if (!options_.any_order) turns_.done(chunk.sequence);
  co_await batch.finish();
  if (!batch.failure()) advance(chunk.length);
}

// One chunk at a time, on the reactor that it was started on.
io::Task<bool> Copy::worker() {
  io::AlignedBuffer buffer(buffer_size_);
  for (;;) {
    if (options_.cancel.is_cancelled()) {
      fail(Error(ECANCELED, "interrupted"));
      break;
    }
    auto chunk = co_await chunks_.next();
    if (!chunk) {
      fail(std::move(chunk).error());
      break;
    }
    if (!*chunk) break;
    RequestBatch batch;
    if ((*chunk)->zero) {
      zero_bytes_.fetch_add((*chunk)->length, std::memory_order_relaxed);
      if (!options_.any_order) co_await turns_.wait((*chunk)->sequence);
      batch.start((*chunk)->offset, options_.target->zero((*chunk)->offset, (*chunk)->length,
                                                          block::WriteFlag::kMayUnmap));
      if (!options_.any_order) turns_.done((*chunk)->sequence);
      co_await batch.finish();
    } else {
      co_await copy_data(**chunk, buffer, batch);
    }
    if (batch.failure()) {
      fail_at(Step::kWrite, batch.failure()->offset, std::move(batch.failure()->error));
    }
  }
  co_return true;
}

io::Task<Result<CopyStatistics>> Copy::run() {
  PLATTER_ASSERT(options_.workers != 0 && options_.workers <= kMaxCopyWorkers);
  PLATTER_ASSERT(options_.sparse_size % 512 == 0 && !options_.reactors.empty());
  PLATTER_ASSERT(chunks_.size() <= options_.target->size());
  total_ = chunks_.size();
  if (options_.count_beforehand) {
    PLATTER_CO_ASSIGN(total_, co_await chunks_.count_data());
  }
  if (options_.progress) options_.progress(0, total_);
  std::vector<io::Task<bool>> workers;
  for (unsigned i = 0; i < options_.workers; ++i) {
    io::Reactor& reactor = *options_.reactors[i % options_.reactors.size()];
    workers.push_back(io::run_on(reactor, worker()));
  }
  co_await io::when_all(std::move(workers));
  if (error_) co_return std::unexpected(std::move(*error_));
  co_return CopyStatistics{.data_bytes = data_bytes_.load(),
                           .zero_bytes = zero_bytes_.load(),
                           .skipped_bytes = chunks_.skipped_bytes()};
}

}  // namespace

io::Task<Result<CopyStatistics>> copy(CopyOptions options) {
  Copy engine(std::move(options));
  co_return co_await engine.run();
}

}  // namespace platter::job
