#include "job/compare_engine.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <vector>

#include "base/bytes.h"
#include "base/math.h"
#include "io/buffer.h"
#include "job/request_batch.h"

namespace platter::job {
namespace {

constexpr uint64_t kChunkSize = 1 << 20;  // of each image; power of two
constexpr uint64_t kSectorSize = 512;

// What to read of a range, where anything is to be read.
struct Chunk {
  uint64_t offset;
  uint64_t length;
  bool read[2];  // false: reads as zeroes
};

using Kind = CompareOutcome::Kind;

class Comparison {
 public:
  explicit Comparison(CompareOptions options)
      : options_(std::move(options)),
        sizes_{options_.images[0]->size(), options_.images[1]->size()},
        total_(std::max(sizes_[0], sizes_[1])) {}

  io::Task<CompareOutcome> run();

 private:
  // The block status run that an image is in.
  struct Run {
    uint64_t end = 0;
    bool data = false, zero = true, allocated = false;
  };

  io::Task<bool> worker();
  io::Task<std::optional<Chunk>> next();
  io::Task<bool> load_run(unsigned image);
  io::Task<void> check(Chunk chunk, io::AlignedBuffer (&buffers)[2]);
  void settle(Kind kind, uint64_t offset, unsigned image = 0, std::optional<Error> error = {});
  void advance(uint64_t bytes);

  const CompareOptions options_;
  const uint64_t sizes_[2];
  const uint64_t total_;

  io::AsyncMutex mutex_;  // position_ and runs_
  uint64_t position_ = 0;
  Run runs_[2];

  std::atomic<bool> settled_ = false;
  std::atomic<uint64_t> done_ = 0;
  std::mutex outcome_mutex_;
  CompareOutcome outcome_;
};

// Chunks are handed out in order and every one that was is looked at: the lowest offset is the
// answer.
void Comparison::settle(Kind kind, uint64_t offset, unsigned image, std::optional<Error> error) {
  std::lock_guard lock(outcome_mutex_);
  settled_.store(true, std::memory_order_relaxed);
  if (outcome_.kind != Kind::kIdentical && outcome_.offset <= offset) return;
  outcome_ = {kind, offset, image, std::move(error)};
}

void Comparison::advance(uint64_t bytes) {
  if (!options_.progress) return;
  uint64_t done = done_.fetch_add(bytes, std::memory_order_relaxed) + bytes;
  options_.progress(done, total_);
}

// The run of `image` at position_. False: that failed, and is the outcome.
io::Task<bool> Comparison::load_run(unsigned image) {
  Run& run = runs_[image];
  if (position_ < run.end) co_return true;
  if (position_ >= sizes_[image]) {
    run = {.end = total_, .data = false, .zero = true, .allocated = false};
    co_return true;
  }
  auto status = co_await options_.images[image]->status_above(
      nullptr, position_, sizes_[image] - position_, block::StatusDetail::kPrecise);
  if (!status) {
    settle(Kind::kStatusFailed, position_, image, std::move(status).error());
    co_return false;
  }
  run = {position_ + status->length, status->data, status->zero, status->allocated};
  co_return true;
}

io::Task<std::optional<Chunk>> Comparison::next() {
  auto lock = co_await mutex_.lock();
  while (position_ < total_ && !settled_.load(std::memory_order_relaxed)) {
    if (options_.cancel.is_cancelled()) {
      settle(Kind::kCancelled, position_);
      break;
    }
    if (!co_await load_run(0) || !co_await load_run(1)) break;
    const Run& a = runs_[0];
    const Run& b = runs_[1];
    if (options_.strict && position_ < std::min(sizes_[0], sizes_[1]) &&
        (a.data != b.data || a.zero != b.zero || a.allocated != b.allocated)) {
      settle(Kind::kStatusDiffers, position_);
      break;
    }
    uint64_t end = std::min(a.end, b.end);
    if (a.zero && b.zero) {
      advance(end - position_);
      position_ = end;
      continue;
    }
    end = std::min(end, base::align_down(position_, kChunkSize) + kChunkSize);
    Chunk chunk{position_, end - position_, {!a.zero, !b.zero}};
    position_ = end;
    co_return chunk;
  }
  co_return std::nullopt;
}

io::Task<void> Comparison::check(Chunk chunk, io::AlignedBuffer (&buffers)[2]) {
  RequestBatch reads[2];
  for (unsigned image = 0; image < 2; ++image) {
    if (!chunk.read[image]) continue;
    reads[image].start(chunk.offset, options_.images[image]->read(
                                         chunk.offset, buffers[image].view(0, chunk.length)));
  }
  for (unsigned image = 0; image < 2; ++image) {
    co_await reads[image].finish();
  }
  for (unsigned image = 0; image < 2; ++image) {
    if (auto& failure = reads[image].failure()) {
      settle(Kind::kReadFailed, chunk.offset, image, std::move(failure->error));
      co_return;
    }
  }
  const uint8_t* data[2] = {buffers[0].data(), buffers[1].data()};
  auto same = [&](uint64_t at, uint64_t length) {
    if (chunk.read[0] && chunk.read[1]) return std::memcmp(data[0] + at, data[1] + at, length) == 0;
    return base::is_zero({data[chunk.read[0] ? 0 : 1] + at, length});
  };
  if (same(0, chunk.length)) {
    advance(chunk.length);
    co_return;
  }
  for (uint64_t at = 0; at < chunk.length; at += kSectorSize) {
    if (!same(at, std::min(kSectorSize, chunk.length - at))) {
      settle(Kind::kContentDiffers, chunk.offset + at);
      co_return;
    }
  }
}

io::Task<bool> Comparison::worker() {
  io::AlignedBuffer buffers[2] = {io::AlignedBuffer(kChunkSize), io::AlignedBuffer(kChunkSize)};
  for (;;) {
    std::optional<Chunk> chunk = co_await next();
    if (!chunk) break;
    co_await check(*chunk, buffers);
  }
  co_return true;
}

io::Task<CompareOutcome> Comparison::run() {
  PLATTER_ASSERT(options_.workers != 0 && !options_.reactors.empty());
  if (options_.progress) options_.progress(0, total_);
  std::vector<io::Task<bool>> workers;
  for (unsigned i = 0; i < options_.workers; ++i) {
    workers.push_back(io::run_on(*options_.reactors[i % options_.reactors.size()], worker()));
  }
  co_await io::when_all(std::move(workers));
  co_return std::move(outcome_);
}

}  // namespace

io::Task<CompareOutcome> compare(CompareOptions options) {
  Comparison comparison(std::move(options));
  co_return co_await comparison.run();
}

}  // namespace platter::job
