// Zeroing and discarding: cut at the driver's granularity, written as data where the driver cannot.

#include <algorithm>

#include "base/math.h"
#include "base/probe.h"
#include "base/try.h"
#include "block/request.h"

namespace platter::block {

namespace {

constexpr uint64_t kZeroBufferBytes = uint64_t{1} << 20;

// The next piece of [offset, offset + length): up to the next multiple of `granularity`, whole
// multiples of it, or the tail; at most `max` (0: no limit) of whole ones.
uint64_t next_piece(uint64_t offset, uint64_t length, uint64_t granularity, uint64_t max) {
  const uint64_t into = offset % granularity;
  if (into != 0) return std::min(length, granularity - into);
  if (length < granularity) return length;
  uint64_t whole = length - length % granularity;
  if (max != 0) whole = std::min(whole, std::max(max - max % granularity, granularity));
  return whole;
}

class Zeroing {
 public:
  Zeroing(Node::State& s, WriteFlags flags) : s_(s), flags_(flags) {}

  io::Task<Result<void>> run(uint64_t offset, uint64_t length) {
    const uint64_t granularity =
        std::max<uint64_t>({s_.limits.zero_alignment, s_.limits.request_alignment, 1});
    while (length != 0) {
      const uint64_t piece = next_piece(offset, length, granularity, s_.limits.max_zero);
      PLATTER_CO_TRY(co_await zero_piece(offset, piece));
      offset += piece;
      length -= piece;
    }
    co_return Result<void>();
  }

 private:
  io::Task<Result<void>> zero_piece(uint64_t offset, uint64_t length) {
    // A tail that ends where an unaligned image ends is whole.
    const uint64_t alignment = s_.limits.request_alignment;
    const bool aligned = base::is_aligned(offset | length, alignment);
    if (aligned) {
      Result<void> result = co_await s_.driver->zero(offset, length, flags_);
      if (result || result.error().code() != ENOTSUP) co_return std::move(result);
    }
    if (flags_.has(WriteFlag::kNoFallback)) co_return fail_errno(ENOTSUP);
    co_return co_await write_zeroes(offset, length);
  }

  io::Task<Result<void>> write_zeroes(uint64_t offset, uint64_t length) {
    if (zeroes_.size() == 0) {
      zeroes_ = io::AlignedBuffer(kZeroBufferBytes);
      zeroes_.view().fill_zero();
    }
    const WriteFlags flags = flags_.without(WriteFlags(WriteFlag::kMayUnmap));
    while (length != 0) {
      const uint64_t piece = std::min<uint64_t>(length, zeroes_.size());
      PLATTER_CO_TRY(co_await write_as_data(s_, offset, zeroes_.view(0, piece), flags));
      offset += piece;
      length -= piece;
    }
    co_return Result<void>();
  }

  Node::State& s_;
  WriteFlags flags_;
  io::AlignedBuffer zeroes_;
};

Result<void> check_zero_range(const Node::State& s, uint64_t offset, uint64_t length) {
  if (!base::range_within(offset, length, kMaxLength)) return fail_errno(EIO);
  if (!s.limits.extends_on_write && !base::range_within(offset, length, s.driver->size())) {
    return fail(EIO, "A request reaches past the end of the image");
  }
  return {};
}

}  // namespace

io::Task<Result<void>> Node::zero(uint64_t offset, uint64_t length, WriteFlags flags) {
  PLATTER_PROBE(node_request, state_->name.c_str(), kProbedZero, offset, length);
  return zero_slow(offset, length, flags);
}

io::Task<Result<void>> Node::zero_slow(uint64_t offset, uint64_t length, WriteFlags flags) {
  State& s = *state_;
  if (length == 0) co_return Result<void>();
  PLATTER_CO_TRY(check_zero_range(s, offset, length));
  if (!s.flags.unmap) flags = flags.without(WriteFlags(WriteFlag::kMayUnmap));
  const bool flush_after = flags.has(WriteFlag::kFua) && !s.fua && !s.no_flush;
  if (!s.fua) flags = flags.without(WriteFlags(WriteFlag::kFua));
  s.check_threshold(offset + length);
  TrackedRange range(s, offset, length, flags);
  co_await range.enter();
  Zeroing zeroing(s, flags);
  Result<void> result = co_await zeroing.run(offset, length);
  s.mark_dirty(offset, length);
  range.leave();
  if (result) result = co_await flush_if(s, flush_after);
  co_return std::move(result);
}

io::Task<Result<void>> Node::discard(uint64_t offset, uint64_t length) {
  PLATTER_PROBE(node_request, state_->name.c_str(), kProbedDiscard, offset, length);
  if (length == 0 || !state_->flags.unmap) return io::Task<Result<void>>::ready(Result<void>());
  return discard_slow(offset, length);
}

io::Task<Result<void>> Node::discard_slow(uint64_t offset, uint64_t length) {
  State& s = *state_;
  const uint64_t size = s.driver->size();
  if (!base::range_within(offset, length, size)) co_return fail_errno(EIO);
  // Discarding is advice: what does not fill a block is left as it is.
  const uint64_t alignment = s.limits.request_alignment;
  const uint64_t begin = offset;
  uint64_t end = offset + length;
  offset = base::align_up(offset, alignment);
  if (end != size) end = base::align_down(end, alignment);
  if (offset >= end) co_return Result<void>();
  TrackedRange range(s, offset, end - offset, {});
  co_await range.enter();
  const uint64_t granularity = std::max<uint64_t>(s.limits.discard_alignment, alignment);
  Result<void> result;
  while (offset < end) {
    const uint64_t piece = next_piece(offset, end - offset, granularity, s.limits.max_discard);
    result = co_await s.driver->discard(offset, piece);
    if (!result && result.error().code() == ENOTSUP) result = {};
    if (!result) break;
    offset += piece;
  }
  s.mark_dirty(begin, length);
  range.leave();
  co_return std::move(result);
}

}  // namespace platter::block
