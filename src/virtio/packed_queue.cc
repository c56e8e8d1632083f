#include "virtio/packed_queue.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/try.h"
#include "virtio/features.h"
#include "virtio/ring_memory.h"

namespace platter::virtio {
namespace {

// Places in a descriptor.
constexpr size_t kBytes = 8;
constexpr size_t kId = 12;
constexpr size_t kFlags = 14;

constexpr uint16_t kAvailable = 1 << 7;
constexpr uint16_t kUsed = 1 << 15;

// The event suppression structures: a position, and what it is for.
constexpr size_t kEventPosition = 0;
constexpr size_t kEventFlags = 2;
constexpr uint64_t kEventBytes = 4;
constexpr uint16_t kEventsOn = 0;
constexpr uint16_t kEventsOff = 1;
constexpr uint16_t kEventsAtPosition = 2;

}  // namespace

std::array<Queue::AreaShape, 3> PackedQueue::area_shapes() const {
  return {{{.bytes = size_ * kDescriptorBytes, .alignment = 16},
           {.bytes = kEventBytes, .alignment = 4},
           {.bytes = kEventBytes, .alignment = 4}}};
}

bool PackedQueue::is_available(Position position) const {
  const auto flags = load_acquire<uint16_t>(entry(position.index) + kFlags);
  return ((flags & kAvailable) != 0) == position.wrap && ((flags & kUsed) != 0) != position.wrap;
}

// The driver shows the first entry of a chain last, so that the rest of it is there, too.
Result<bool> PackedQueue::take_next(Chain& chain) {
  if (!is_available(available_)) return false;
  if (fetched_ == 0) fetch_ahead();
  Position at = available_;
  const auto next = [&] {
    const Descriptor descriptor = packed_descriptor(entry(at.index));
    if (inflight_) inflight_->note(descriptor);
    at.advance(1, size_);
    return descriptor;
  };
  PLATTER_TRY(add_chain(next, chain));
  available_ = at;
  fetched_ -= std::min<uint32_t>(fetched_, chain.slots_);
  return true;
}

// A chain of several entries is taken for several of one: no more than lines are at stake.
void PackedQueue::fetch_ahead() {
  std::array<Descriptor, kFetchedAhead> firsts;
  for (Position at = available_; fetched_ < kFetchedAhead && is_available(at); at.advance(1, size_))
    firsts[fetched_++] = packed_descriptor(entry(at.index));
  // One alone is fetched by taking it.
  if (fetched_ > 1) Queue::fetch_ahead(std::span(firsts).first(fetched_));
}

Result<bool> PackedQueue::take_again(uint32_t n, Chain& chain) {
  auto descriptor = again_[n].descriptors.begin();
  PLATTER_TRY(add_chain([&] { return *descriptor++; }, chain));
  chain.inflight_ = again_[n].entry;
  return true;
}

Result<void> PackedQueue::add_chain(auto next, Chain& chain) {
  for (uint32_t count = 1; count <= size_; ++count) {
    const Descriptor descriptor = next();
    const bool more = (descriptor.flags & kDescriptorNext) != 0;
    if ((descriptor.flags & kDescriptorIndirect) == 0) {
      PLATTER_TRY(chain.add(descriptor, memory()));
    } else if (more || count != 1) {
      return fail(EINVAL, "An indirect descriptor is part of a longer chain");
    } else {
      PLATTER_TRY(add_indirect(descriptor, chain));
    }
    if (more) continue;
    chain.id_ = descriptor.link;
    chain.slots_ = static_cast<uint16_t>(count);
    return {};
  }
  return fail(EINVAL, "A chain of descriptors is longer than the ring");
}

Result<uint32_t> PackedQueue::track() {
  inflight_.emplace(options_.inflight, size_);
  if (!inflight_->in_use()) {
    PLATTER_TRY(check_state());
    inflight_->begin(used_.bits());
    return 0;
  }
  const auto flags_at = [this](uint16_t index) {
    return load_acquire<uint16_t>(entry(index) + kFlags);
  };
  PLATTER_ASSIGN(auto recovered, inflight_->recover(flags_at));
  used_ = first_unshown_ = available_ = Position::of(recovered.used);
  again_ = std::move(recovered.requests);
  for (const auto& request : again_)
    available_.advance(static_cast<uint32_t>(request.descriptors.size()), size_);
  // A batch that was not shown may have left entries that say used behind its first one: the driver
  // would find them once that one is shown.
  for (Position at = used_; at != available_; at.advance(1, size_)) {
    uint8_t* place = entry(at.index) + kFlags;
    const auto flags = static_cast<uint16_t>(load_relaxed<uint16_t>(place) & ~(kAvailable | kUsed));
    store_release<uint16_t>(place, static_cast<uint16_t>(flags | (at.wrap ? kAvailable : kUsed)));
  }
  return static_cast<uint32_t>(again_.size());
}

Result<void> PackedQueue::note_taken(Chain& chain) {
  PLATTER_ASSIGN(chain.inflight_, inflight_->taken());
  return {};
}

void PackedQueue::write_used(const Used& used) {
  uint8_t* descriptor = entry(used_.index);
  store_relaxed<uint32_t>(descriptor + kBytes, used.written);
  store_relaxed<uint16_t>(descriptor + kId, used.id);
  const auto flags = static_cast<uint16_t>((used_.wrap ? kAvailable | kUsed : 0) |
                                           (used.written != 0 ? kDescriptorWrite : 0));
  if (unshown_slots_ == 0) {
    first_flags_ = flags;
  } else {
    store_relaxed<uint16_t>(descriptor + kFlags, flags);
  }
  if (inflight_) inflight_->returned(used.inflight);
  used_.advance(used.slots, size_);
  unshown_slots_ += used.slots;
}

void PackedQueue::show() {
  if (unshown_slots_ == 0) return;
  if (inflight_) inflight_->before_show(used_.bits());
  store_release<uint16_t>(entry(first_unshown_.index) + kFlags, first_flags_);
  if (inflight_) inflight_->after_show();
  untold_slots_ += unshown_slots_;
  unshown_slots_ = 0;
  first_unshown_ = used_;
}

bool PackedQueue::publish() {
  show();
  if (untold_slots_ == 0) return false;
  const uint32_t advanced = std::exchange(untold_slots_, 0);
  // The driver asks for interrupts and then looks at the ring; we the other way round.
  full_fence();
  return driver_wants_interrupt(advanced);
}

bool PackedQueue::is_awaited() const {
  return has(kEventIndex) && driver_wants_interrupt(untold_slots_ + unshown_slots_);
}

bool PackedQueue::driver_wants_interrupt(uint32_t advanced) const {
  const auto flags = load_relaxed<uint16_t>(areas_[1] + kEventFlags);
  if (flags != kEventsAtPosition || !has(kEventIndex)) return flags != kEventsOff;
  const auto event = Position::of(load_relaxed<uint16_t>(areas_[1] + kEventPosition));
  // Counted from the start of the round that the used entries are in; the one before is negative.
  const int64_t position =
      int64_t{event.index} - (event.wrap == used_.wrap ? 0 : static_cast<int64_t>(size_));
  return position < used_.index && position >= int64_t{used_.index} - advanced;
}

bool PackedQueue::enable_notifications() {
  if (has(kEventIndex)) {
    store_relaxed<uint16_t>(areas_[2] + kEventPosition, available_.bits());
    store_release<uint16_t>(areas_[2] + kEventFlags, kEventsAtPosition);
  } else {
    store_relaxed<uint16_t>(areas_[2] + kEventFlags, kEventsOn);
  }
  full_fence();
  return to_resubmit() != 0 || is_available(available_);
}

void PackedQueue::disable_notifications() {
  store_relaxed<uint16_t>(areas_[2] + kEventFlags, kEventsOff);
}

}  // namespace platter::virtio
