#include "job/rebase_engine.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/math.h"
#include "base/try.h"
#include "io/buffer.h"
#include "io/sync.h"

namespace platter::job {
namespace {

constexpr uint64_t kBufferSize = 1 << 20;
constexpr uint64_t kMaxUnit = 2 << 20;
constexpr uint64_t kMaxZeroStep = uint64_t{256} << 20;

// What the overlay does not allocate itself, and may have to.
struct Range {
  uint64_t offset;
  uint64_t length;
  bool old_zero;  // the old backing file shows zeroes: no need to read it
};

class Rebase {
 public:
  explicit Rebase(RebaseOptions options)
      : options_(std::move(options)), zeroes_last_(options_.old_backing != nullptr) {
    const block::Limits& limits = options_.overlay->limits();
    const uint64_t unit =
        std::max<uint64_t>({limits.zero_alignment, limits.request_alignment, kMinUnit});
    unit_ = base::is_power_of_two(unit) ? std::min(unit, kMaxUnit) : kMinUnit;
    buffer_size_ = std::max(kBufferSize, unit_);
    size_ = options_.overlay->size();
  }
  io::Task<Result<uint64_t>> run();

 private:
  static constexpr uint64_t kMinUnit = 512;

  io::Task<bool> worker();
  io::Task<Result<void>> write_zeroes(Range range);
  io::Task<Result<void>> handle(Range range, io::AlignedBuffer& old_bytes,
                                io::AlignedBuffer& new_bytes);
  io::Task<Result<void>> write_differences(Range range, std::span<uint8_t> old_bytes,
                                           std::span<const uint8_t> new_bytes);
  io::Task<Result<void>> write_run(uint64_t offset, std::span<uint8_t> bytes);
  io::Task<Result<std::optional<Range>>> next();
  io::Task<Result<uint64_t>> untouched_until(uint64_t offset);
  io::Task<Result<block::BlockStatus>> status_of(block::Backend* backend, uint64_t offset,
                                                 uint64_t length) const;
  io::Task<Result<void>> read(block::Backend* backend, const char* which, uint64_t offset,
                              io::BufferList buffers) const;
  void fail(Error error);

  const RebaseOptions options_;
  // Zeroes that an overlay without a backing file need not store would not be there once it has
  // one.
  const bool zeroes_last_;
  uint64_t unit_;  // what the overlay allocates at a time: compared, and written, as a whole
  uint64_t buffer_size_;
  uint64_t size_;

  io::AsyncMutex mutex_;  // position_
  uint64_t position_ = 0;
  std::atomic<uint64_t> written_ = 0;
  std::atomic<bool> stopped_ = false;
  std::mutex error_mutex_;
  std::optional<Error> error_;
};

void Rebase::fail(Error error) {
  stopped_.store(true, std::memory_order_relaxed);
  std::lock_guard lock(error_mutex_);
  if (!error_) error_.emplace(std::move(error));
}

std::string at_byte(const char* what, uint64_t offset) {
  return std::string(what) + " at byte " + std::to_string(offset);
}

// Past the end of a backing file there are zeroes.
io::Task<Result<void>> Rebase::read(block::Backend* backend, const char* which, uint64_t offset,
                                    io::BufferList buffers) const {
  const uint64_t end = backend == nullptr ? 0 : backend->size();
  const size_t inside = offset < end ? std::min<uint64_t>(end - offset, buffers.size()) : 0;
  buffers.sub(inside, buffers.size() - inside).fill_zero();
  if (inside == 0) co_return Result<void>{};
  auto done = co_await backend->read(offset, buffers.sub(0, inside));
  if (!done) done.error().add_context(at_byte(which, offset));
  co_return done;
}

io::Task<Result<block::BlockStatus>> Rebase::status_of(block::Backend* backend, uint64_t offset,
                                                       uint64_t length) const {
  const uint64_t end = backend == nullptr ? 0 : backend->size();
  if (offset >= end) co_return block::BlockStatus{.length = length, .zero = true};
  co_return co_await backend->status_above(nullptr, offset, std::min(end - offset, length),
                                           block::StatusDetail::kPrecise);
}

// Where what is to stay as it is ends, from `offset` on: `offset` itself if it may have to change.
io::Task<Result<uint64_t>> Rebase::untouched_until(uint64_t offset) {
  block::Node* old_node = options_.old_backing != nullptr ? &options_.old_backing->node() : nullptr;
  PLATTER_CO_ASSIGN(const block::BlockStatus own,
                    co_await options_.overlay->status_above(old_node, offset, size_ - offset,
                                                            block::StatusDetail::kFast));
  if (own.allocated) co_return offset + own.length;
  uint64_t length = own.length;
  if (options_.common != nullptr) {
    PLATTER_CO_ASSIGN(const block::BlockStatus above,
                      co_await options_.overlay->status_above(options_.common, offset, length,
                                                              block::StatusDetail::kFast));
    const uint64_t common_end = options_.common->size();
    if (!above.allocated && offset < common_end)
      co_return std::min(offset + above.length, common_end);
    length = std::min(length, above.length);
  }
  PLATTER_CO_ASSIGN(const block::BlockStatus old_status,
                    co_await status_of(options_.old_backing, offset, length));
  if (!old_status.zero) co_return offset;
  PLATTER_CO_ASSIGN(const block::BlockStatus new_status,
                    co_await status_of(options_.new_backing, offset, old_status.length));
  co_return new_status.zero ? offset + new_status.length : offset;
}

io::Task<Result<std::optional<Range>>> Rebase::next() {
  auto lock = co_await mutex_.lock();
  while (position_ < size_ && !stopped_.load(std::memory_order_relaxed)) {
    PLATTER_CO_ASSIGN(uint64_t end, co_await untouched_until(position_));
    if (end < size_) end = base::align_down(end, unit_);
    if (end > position_) {
      position_ = end;
      if (options_.progress) options_.progress(position_, size_);
      continue;
    }
    // As far as the overlay leaves it to its backing file.
    PLATTER_CO_ASSIGN(const block::BlockStatus own,
                      co_await options_.overlay->status_above(
                          options_.old_backing != nullptr ? &options_.old_backing->node() : nullptr,
                          position_, size_ - position_, block::StatusDetail::kFast));
    PLATTER_ASSERT(!own.allocated);
    const uint64_t shown_until = position_ + own.length;
    PLATTER_CO_ASSIGN(const block::BlockStatus old_status,
                      co_await status_of(options_.old_backing, position_,
                                         std::min(shown_until - position_, kMaxZeroStep)));
    uint64_t zero_until = position_ + old_status.length;
    if (old_status.zero) {
      PLATTER_CO_ASSIGN(const block::BlockStatus new_status,
                        co_await status_of(options_.new_backing, position_, old_status.length));
      if (!new_status.zero) zero_until = position_ + new_status.length;
    }
    zero_until = base::align_down(zero_until, unit_);
    const bool zero = old_status.zero && zero_until > position_;
    const uint64_t limit =
        zero ? zero_until
             : std::min(shown_until, base::align_down(position_, buffer_size_) + buffer_size_);
    const Range range{position_, std::min(limit, size_) - position_, zero};
    position_ += range.length;
    if (options_.progress) options_.progress(position_, size_);
    co_return range;
  }
  co_return std::nullopt;
}

io::Task<Result<void>> Rebase::write_run(uint64_t offset, std::span<uint8_t> bytes) {
  written_.fetch_add(bytes.size(), std::memory_order_relaxed);
  if (base::is_zero(bytes) && zeroes_last_)
    co_return co_await options_.overlay->zero(offset, bytes.size());
  const uint64_t alignment = options_.overlay->limits().compressed_alignment;
  const bool compressed = options_.compressed && alignment != 0 && offset % alignment == 0 &&
                          (bytes.size() % alignment == 0 || offset + bytes.size() == size_);
  const auto flags =
      compressed ? block::WriteFlags(block::WriteFlag::kCompressed) : block::WriteFlags();
  co_return co_await options_.overlay->write(offset, io::BufferList(bytes), flags);
}

io::Task<Result<void>> Rebase::write_differences(Range range, std::span<uint8_t> old_bytes,
                                                 std::span<const uint8_t> new_bytes) {
  const auto unit_at = [&](uint64_t at) { return std::min(unit_, range.length - at); };
  const auto differs = [&](uint64_t at) {
    return std::memcmp(old_bytes.data() + at, new_bytes.data() + at, unit_at(at)) != 0;
  };
  for (uint64_t at = 0; at < range.length;) {
    if (!differs(at)) {
      at += unit_at(at);
      continue;
    }
    const bool zero = base::is_zero(old_bytes.subspan(at, unit_at(at)));
    uint64_t end = at + unit_at(at);
    while (end < range.length && differs(end) &&
           base::is_zero(old_bytes.subspan(end, unit_at(end))) == zero) {
      end += unit_at(end);
    }
    auto written = co_await write_run(range.offset + at, old_bytes.subspan(at, end - at));
    if (!written) {
      written.error().add_context(at_byte("error while writing", range.offset + at));
      co_return written;
    }
    at = end;
  }
  co_return Result<void>{};
}

// As data.
io::Task<Result<void>> Rebase::write_zeroes(Range range) {
  io::AlignedBuffer zeroes(std::min(range.length, buffer_size_));
  zeroes.view().fill_zero();
  for (uint64_t at = 0; at < range.length; at += zeroes.size()) {
    const size_t length = std::min<uint64_t>(zeroes.size(), range.length - at);
    PLATTER_CO_TRY(co_await options_.overlay->write(range.offset + at, zeroes.view(0, length)));
  }
  co_return Result<void>{};
}

io::Task<Result<void>> Rebase::handle(Range range, io::AlignedBuffer& old_bytes,
                                      io::AlignedBuffer& new_bytes) {
  if (range.old_zero) {
    written_.fetch_add(range.length, std::memory_order_relaxed);
    auto zeroed = zeroes_last_ ? co_await options_.overlay->zero(range.offset, range.length)
                               : co_await write_zeroes(range);
    if (!zeroed) zeroed.error().add_context(at_byte("error while writing", range.offset));
    co_return zeroed;
  }
  auto [from_old, from_new] =
      co_await io::when_all(read(options_.old_backing, "error while reading from old backing file",
                                 range.offset, old_bytes.view(0, range.length)),
                            read(options_.new_backing, "error while reading from new backing file",
                                 range.offset, new_bytes.view(0, range.length)));
  PLATTER_CO_TRY(std::move(from_old));
  PLATTER_CO_TRY(std::move(from_new));
  co_return co_await write_differences(range, old_bytes.span().first(range.length),
                                       new_bytes.span().first(range.length));
}

io::Task<bool> Rebase::worker() {
  io::AlignedBuffer old_bytes(buffer_size_), new_bytes(buffer_size_);
  for (;;) {
    if (options_.cancel.is_cancelled()) {
      fail(Error(ECANCELED, "interrupted"));
      break;
    }
    auto range = co_await next();
    if (!range) {
      fail(std::move(range).error());
      break;
    }
    if (!*range) break;
    auto handled = co_await handle(**range, old_bytes, new_bytes);
    if (!handled) {
      fail(std::move(handled).error());
      break;
    }
  }
  co_return true;
}

io::Task<Result<uint64_t>> Rebase::run() {
  PLATTER_ASSERT(options_.workers != 0 && !options_.reactors.empty());
  if (options_.progress) options_.progress(0, size_);
  std::vector<io::Task<bool>> workers;
  for (unsigned i = 0; i < options_.workers; ++i)
    workers.push_back(io::run_on(*options_.reactors[i % options_.reactors.size()], worker()));
  co_await io::when_all(std::move(workers));
  if (error_) co_return std::unexpected(std::move(*error_));
  co_return written_.load();
}

}  // namespace

io::Task<Result<uint64_t>> rebase(RebaseOptions options) {
  Rebase engine(std::move(options));
  co_return co_await engine.run();
}

}  // namespace platter::job
