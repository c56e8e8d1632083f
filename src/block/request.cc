// The request path in front of a driver: reads and writes. Zeroing and discarding stand in zero.cc.

#include <algorithm>

#include "base/math.h"
#include "base/probe.h"
#include "base/try.h"
#include "block/node_state.h"
#include "block/request.h"

namespace platter::block {

namespace {

using base::align_down;
using base::align_up;
using base::is_aligned;

// What a padded or badly placed request is copied through, at most, at a time.
constexpr uint64_t kBounceBytes = uint64_t{1} << 20;

}  // namespace

uint64_t transfer_limit(const Limits& limits) {
  const uint64_t largest = align_down(kMaxRequest, limits.request_alignment);
  if (limits.max_transfer == 0) return largest;
  return std::max<uint64_t>(align_down(limits.max_transfer, limits.request_alignment),
                            limits.request_alignment);
}

bool memory_fits(const Limits& limits, const io::BufferList& buffers) {
  return limits.memory_alignment == 1 || limits.request_alignment == 1 ||
         buffers.is_aligned(limits.memory_alignment);
}

namespace {

io::Task<Result<void>> ready(Result<void> result) {
  return io::Task<Result<void>>::ready(std::move(result));
}

io::Task<Result<void>> read_pieces(Node::State& s, uint64_t offset, io::BufferList buffers) {
  const uint64_t limit = transfer_limit(s.limits);
  for (uint64_t done = 0; done < buffers.size();) {
    const uint64_t length = std::min(limit, buffers.size() - done);
    PLATTER_CO_TRY(co_await s.driver->read(offset + done, buffers.sub(done, length)));
    done += length;
  }
  co_return Result<void>();
}

io::Task<Result<void>> read_aligned(Node::State& s, uint64_t offset, io::BufferList buffers) {
  if (buffers.size() <= transfer_limit(s.limits)) return s.driver->read(offset, buffers);
  return read_pieces(s, offset, buffers);
}

io::Task<Result<void>> read_through_bounce(Node::State& s, uint64_t offset,
                                           io::BufferList buffers) {
  const uint64_t alignment = s.limits.request_alignment;
  const uint64_t end = offset + buffers.size();
  const uint64_t whole = align_up(end, alignment) - align_down(offset, alignment);
  io::AlignedBuffer bounce(std::min(whole, std::max(kBounceBytes, alignment)));
  while (offset < end) {
    const uint64_t begin = align_down(offset, alignment);
    const uint64_t length = std::min<uint64_t>(align_up(end, alignment) - begin, bounce.size());
    PLATTER_CO_TRY(co_await read_aligned(s, begin, bounce.view(0, length)));
    const uint64_t skip = offset - begin;
    const uint64_t useful = std::min(end - offset, length - skip);
    buffers.sub(0, useful).copy_from(bounce.span().subspan(skip, useful));
    buffers = buffers.sub(useful, buffers.size() - useful);
    offset += useful;
  }
  co_return Result<void>();
}

io::Task<Result<void>> write_pieces(Node::State& s, uint64_t offset, io::BufferList buffers,
                                    WriteFlags flags) {
  const uint64_t limit = transfer_limit(s.limits);
  for (uint64_t done = 0; done < buffers.size();) {
    const uint64_t length = std::min(limit, buffers.size() - done);
    PLATTER_CO_TRY(co_await s.driver->write(offset + done, buffers.sub(done, length), flags));
    done += length;
  }
  co_return Result<void>();
}

io::Task<Result<void>> write_at_points(Node::State& s, uint64_t offset, io::BufferList buffers,
                                       WriteFlags flags) {
  co_await s.debug_points->pass(DebugEvent::kPwritev);
  auto result = co_await write_pieces(s, offset, buffers, flags);
  co_await s.debug_points->pass(DebugEvent::kPwritevDone);
  co_return std::move(result);
}

io::Task<Result<void>> write_aligned(Node::State& s, uint64_t offset, io::BufferList buffers,
                                     WriteFlags flags) {
  if (s.debug_points != nullptr) [[unlikely]]
    return write_at_points(s, offset, buffers, flags);
  if (buffers.size() <= transfer_limit(s.limits)) return s.driver->write(offset, buffers, flags);
  return write_pieces(s, offset, buffers, flags);
}

io::Task<void> pass(Node::State& s, DebugEvent event) {
  if (s.debug_points == nullptr) return io::Task<void>::ready();
  return s.debug_points->pass(event);
}

// Reads the blocks of [begin, begin + length) in `bounce` that the bytes [from, to) do not wholly
// cover.
io::Task<Result<void>> read_edges(Node::State& s, uint64_t begin, uint64_t length, uint64_t from,
                                  uint64_t to, io::AlignedBuffer& bounce) {
  const uint64_t alignment = s.limits.request_alignment;
  const bool head = !is_aligned(from, alignment);
  const uint64_t last = begin + length - alignment;
  const bool tail = !is_aligned(to, alignment) && !(head && last == begin);
  if (head) {
    co_await pass(s, DebugEvent::kPwritevRmwHead);
    PLATTER_CO_TRY(co_await s.driver->read(begin, bounce.view(0, alignment)));
    co_await pass(s, DebugEvent::kPwritevRmwAfterHead);
  }
  if (tail) {
    co_await pass(s, DebugEvent::kPwritevRmwTail);
    PLATTER_CO_TRY(co_await s.driver->read(last, bounce.view(length - alignment, alignment)));
    co_await pass(s, DebugEvent::kPwritevRmwAfterTail);
  }
  co_return Result<void>();
}

io::Task<Result<void>> write_through_bounce(Node::State& s, uint64_t offset, io::BufferList buffers,
                                            WriteFlags flags) {
  const uint64_t alignment = s.limits.request_alignment;
  const uint64_t end = offset + buffers.size();
  const uint64_t whole = align_up(end, alignment) - align_down(offset, alignment);
  io::AlignedBuffer bounce(std::min(whole, std::max(kBounceBytes, alignment)));
  while (offset < end) {
    const uint64_t begin = align_down(offset, alignment);
    const uint64_t length = std::min<uint64_t>(align_up(end, alignment) - begin, bounce.size());
    const uint64_t skip = offset - begin;
    const uint64_t useful = std::min(end - offset, length - skip);
    PLATTER_CO_TRY(co_await read_edges(s, begin, length, offset, offset + useful, bounce));
    buffers.sub(0, useful).copy_to(bounce.span().subspan(skip, useful));
    PLATTER_CO_TRY(co_await write_aligned(s, begin, bounce.view(0, length), flags));
    buffers = buffers.sub(useful, buffers.size() - useful);
    offset += useful;
  }
  co_return Result<void>();
}

Result<void> check_range(const Node::State& s, uint64_t offset, uint64_t length) {
  if (!base::range_within(offset, length, kMaxLength)) {
    return fail(EIO, "A request reaches past the largest possible image");
  }
  if (!s.limits.extends_on_write && !base::range_within(offset, length, s.driver->size())) {
    return fail(EIO, "A request reaches past the end of the image");
  }
  return {};
}

}  // namespace

io::Task<Result<void>> Node::read(uint64_t offset, io::BufferList buffers) {
  State& s = *state_;
  PLATTER_PROBE(node_request, s.name.c_str(), kProbedRead, offset, buffers.size());
  if (s.plain_read && buffers.size() - 1 < transfer_limit(s.limits) &&
      base::range_within(offset, buffers.size(), s.driver->size())) [[likely]] {
    return s.driver->read(offset, buffers);
  }
  return read_slow(offset, buffers);
}

io::Task<Result<void>> Node::read_slow(uint64_t offset, io::BufferList buffers) {
  State& s = *state_;
  if (buffers.size() > kMaxRequest || !base::range_within(offset, buffers.size(), kMaxLength)) {
    return ready(fail_errno(EIO));
  }
  const uint64_t alignment = s.limits.request_alignment;
  const uint64_t size = align_up(s.driver->size(), alignment);
  if (!base::range_within(offset, buffers.size(), size)) {
    const uint64_t inside = offset < size ? size - offset : 0;
    buffers.sub(inside, buffers.size() - inside).fill_zero();
    buffers = buffers.sub(0, inside);
  }
  if (buffers.empty()) return ready({});
  if (is_aligned(offset | buffers.size(), alignment) && memory_fits(s.limits, buffers)) {
    return read_aligned(s, offset, buffers);
  }
  return read_through_bounce(s, offset, buffers);
}

io::Task<Result<void>> Node::write(uint64_t offset, io::BufferList buffers, WriteFlags flags) {
  State& s = *state_;
  PLATTER_PROBE(node_request, s.name.c_str(), kProbedWrite, offset, buffers.size());
  if (s.plain_write && buffers.size() - 1 < transfer_limit(s.limits) &&
      (flags & s.slow_flags).empty() &&
      (s.limits.extends_on_write ? offset < kMaxLength - kMaxRequest
                                 : base::range_within(offset, buffers.size(), s.driver->size())))
      [[likely]] {
    s.reach(offset + buffers.size());
    return s.driver->write(offset, buffers, flags);
  }
  return write_slow(offset, buffers, flags);
}

namespace {

io::Task<Result<void>> write_placed(Node::State& s, uint64_t offset, io::BufferList buffers,
                                    WriteFlags flags) {
  const bool aligned = is_aligned(offset | buffers.size(), s.limits.request_alignment);
  // What is compressed is copied anyway, and must not be cut.
  if (aligned && (memory_fits(s.limits, buffers) || flags.has(WriteFlag::kCompressed))) {
    return write_aligned(s, offset, buffers, flags);
  }
  // Zones take no block twice.
  if (!aligned && s.driver->zoned() != nullptr)
    return ready(fail(kZoneUnaligned, "A write to a zoned disk is not of whole blocks"));
  return write_through_bounce(s, offset, buffers, flags);
}

}  // namespace

TrackedRange::TrackedRange(Node::State& s, uint64_t offset, uint64_t length, WriteFlags flags)
    : tracker_(s.tracker.get()) {
  const uint64_t alignment = s.limits.request_alignment;
  write_.begin = align_down(offset, alignment);
  write_.end = align_up(offset + length, alignment);
  write_.serialising =
      flags.has(WriteFlag::kSerialising) || !is_aligned(offset | length, alignment);
}

io::Task<void> TrackedRange::enter() {
  if (tracker_ == nullptr) return io::Task<void>::ready();
  if (!write_.serialising) {
    slot_ = reactor_slot();
    if (tracker_->try_enter_ordinary(slot_)) {
      ordinary_ = true;
      return io::Task<void>::ready();
    }
  }
  return tracker_->enter(write_);
}

void TrackedRange::leave() {
  if (tracker_ == nullptr) return;
  if (ordinary_) {
    tracker_->leave_ordinary(slot_);
  } else {
    tracker_->leave(write_);
  }
}

io::Task<Result<void>> flush_if(Node::State& s, bool wanted) {
  if (!wanted) return ready({});
  return s.driver->flush();
}

io::Task<Result<void>> Node::write_slow(uint64_t offset, io::BufferList buffers, WriteFlags flags) {
  State& s = *state_;
  if (buffers.empty()) co_return Result<void>();
  if (buffers.size() > kMaxRequest) co_return fail(EIO, "A write is larger than 2 GiB");
  PLATTER_CO_TRY(check_range(s, offset, buffers.size()));
  if (flags.has(WriteFlag::kCompressed) && s.limits.compressed_alignment == 0) {
    co_return fail_errno(ENOTSUP);
  }
  if (s.detect_zeroes != DetectZeroes::kOff && !flags.has(WriteFlag::kCompressed) &&
      buffers.is_zero()) {
    if (s.detect_zeroes == DetectZeroes::kUnmap) flags |= WriteFlag::kMayUnmap;
    co_return co_await zero(offset, buffers.size(), flags);
  }
  const bool flush_after = flags.has(WriteFlag::kFua) && !s.fua && !s.no_flush;
  if (!s.fua) flags = flags.without(WriteFlags(WriteFlag::kFua));
  s.check_threshold(offset + buffers.size());
  TrackedRange range(s, offset, buffers.size(), flags);
  co_await range.enter();
  Result<void> result = co_await write_placed(s, offset, buffers, flags);
  s.mark_dirty(offset, buffers.size());
  range.leave();
  if (result) result = co_await flush_if(s, flush_after);
  co_return std::move(result);
}

namespace {

io::Task<Result<void>> flush_at_points(Node::State& s) {
  co_await s.primary->pass(DebugEvent::kFlushToOs);
  co_await s.primary->pass(DebugEvent::kFlushToDisk);
  co_return co_await s.driver->flush();
}

}  // namespace

io::Task<Result<void>> Node::flush() {
  State& s = *state_;
  PLATTER_PROBE(node_request, s.name.c_str(), kProbedFlush, UINT64_C(0), UINT64_C(0));
  if (s.primary != nullptr && s.primary->has_debug_points()) [[unlikely]]
    return flush_at_points(s);
  if (s.no_flush && s.type->kind == DriverKind::kProtocol) return ready({});
  return s.driver->flush();
}

io::Task<Result<void>> write_as_data(Node::State& s, uint64_t offset, io::BufferList buffers,
                                     WriteFlags flags) {
  return write_placed(s, offset, buffers, flags);
}

io::Task<Result<void>> Node::resize(uint64_t size, Preallocation preallocation, bool exact) {
  State& s = *state_;
  Resizable* resizable = s.driver->resizable();
  if (resizable == nullptr) {
    co_return fail(ENOTSUP, "Image format driver does not support resize");
  }
  if (size > kMaxLength) co_return fail(EFBIG, "The new size is larger than any image can be");
  if (s.flags.read_only) co_return fail(EACCES, "Image is read-only");
  for (const auto& bitmap : s.recorded_in) PLATTER_CO_TRY(bitmap->check_size(size));
  PLATTER_CO_TRY(co_await resizable->resize(size, preallocation, exact));
  for (const auto& bitmap : s.recorded_in) {
    if (bitmap->size() != s.driver->size()) PLATTER_CO_TRY(bitmap->resize(s.driver->size()));
  }
  co_return Result<void>();
}

}  // namespace platter::block
