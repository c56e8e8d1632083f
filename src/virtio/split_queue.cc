#include "virtio/split_queue.h"

#include <fmt/format.h>

#include <cerrno>
#include <utility>

#include "base/prefetch.h"
#include "base/try.h"
#include "virtio/features.h"
#include "virtio/ring_memory.h"

namespace platter::virtio {
namespace {

// The available and the used ring begin alike: flags, index, entries; after the last entry comes
// the other side's event index.
constexpr size_t kFlags = 0;
constexpr size_t kIndex = 2;
constexpr size_t kEntries = 4;
constexpr size_t kAvailableEntryBytes = 2;
constexpr size_t kUsedEntryBytes = 8;
constexpr size_t kEventIndexBytes = 2;

constexpr uint16_t kNoInterrupt = 1;
constexpr uint16_t kNoNotify = 1;

}  // namespace

std::array<Queue::AreaShape, 3> SplitQueue::area_shapes() const {
  // The event indices are there whether they are used or not: 2.7.6 and 2.7.8 count them only where
  // they were negotiated.
  const uint64_t event = has(kEventIndex) ? kEventIndexBytes : 0;
  return {{{.bytes = size_ * kDescriptorBytes, .alignment = 16},
           {.bytes = kEntries + size_ * kAvailableEntryBytes + event, .alignment = 2},
           {.bytes = kEntries + size_ * kUsedEntryBytes + event, .alignment = 4}}};
}

Result<bool> SplitQueue::take_next(Chain& chain) {
  const uint8_t* available = areas_[1];
  if (seen_available_ == next_available_) {
    seen_available_ = load_acquire<uint16_t>(available + kIndex);
    const auto ahead = static_cast<uint16_t>(seen_available_ - next_available_);
    if (ahead > size_) {
      return fail(EINVAL, fmt::format("The driver moved the available index from {} to {} in a "
                                      "virtqueue of {} entries",
                                      next_available_, seen_available_, size_));
    }
    if (ahead == 0) return false;
  }
  if (fetched_ == next_available_) fetch_ahead();
  const uint16_t head = available_head(next_available_);
  if (head >= size_)
    return fail(EINVAL, fmt::format("The driver made descriptor {} of {} available", head, size_));
  PLATTER_TRY(add_chain(head, chain));
  ++next_available_;
  return true;
}

uint16_t SplitQueue::available_head(uint16_t position) const {
  return load_relaxed<uint16_t>(areas_[1] + kEntries + position % size_ * kAvailableEntryBytes);
}

void SplitQueue::fetch_ahead() {
  std::array<const uint8_t*, kFetchedAhead> heads;
  size_t count = 0;
  for (; fetched_ != seen_available_ && count < kFetchedAhead; ++fetched_) {
    const uint16_t head = available_head(fetched_);
    if (head >= size_) continue;
    heads[count] = areas_[0] + head * kDescriptorBytes;
    base::prefetch_to_read(heads[count++]);
  }
  // One alone is fetched by taking it.
  if (count < 2) return;
  std::array<Descriptor, kFetchedAhead> firsts;
  for (size_t i = 0; i < count; ++i) firsts[i] = split_descriptor(heads[i]);
  Queue::fetch_ahead(std::span(firsts).first(count));
}

Result<bool> SplitQueue::take_again(uint32_t n, Chain& chain) {
  PLATTER_TRY(add_chain(again_[n], chain));
  return true;
}

Result<void> SplitQueue::add_chain(uint16_t head, Chain& chain) {
  PLATTER_TRY(add_descriptors(head, chain));
  chain.id_ = head;
  chain.slots_ = 1;
  return {};
}

Result<void> SplitQueue::add_descriptors(uint16_t head, Chain& chain) {
  uint16_t at = head;
  for (uint32_t count = 0; count < size_; ++count) {
    const Descriptor descriptor = split_descriptor(areas_[0] + at * kDescriptorBytes);
    const bool more = (descriptor.flags & kDescriptorNext) != 0;
    if ((descriptor.flags & kDescriptorIndirect) != 0) {
      if (more) return fail(EINVAL, "An indirect descriptor is followed by another");
      return add_indirect(descriptor, chain);
    }
    PLATTER_TRY(chain.add(descriptor, memory()));
    if (!more) return {};
    at = descriptor.link;
    if (at >= size_) {
      return fail(EINVAL, fmt::format("A descriptor is followed by number {} of a virtqueue of {} "
                                      "entries",
                                      at, size_));
    }
  }
  return fail(EINVAL, "Descriptors form a loop");
}

void SplitQueue::write_used(const Used& used) {
  uint8_t* entry = areas_[2] + kEntries + next_used_ % size_ * kUsedEntryBytes;
  store_relaxed<uint32_t>(entry, used.id);
  store_relaxed<uint32_t>(entry + sizeof(uint32_t), used.written);
  if (inflight_) inflight_->returned(used.id);
  ++next_used_;
}

// All that was taken is used or in flight, so what is in flight says up to where was taken.
Result<uint32_t> SplitQueue::track() {
  inflight_.emplace(options_.inflight, size_);
  if (!inflight_->in_use()) {
    PLATTER_TRY(check_state());
    inflight_->begin(shown_used_);
    return 0;
  }
  const auto used = load_acquire<uint16_t>(areas_[2] + kIndex);
  PLATTER_ASSIGN(again_, inflight_->recover(used));
  const auto count = static_cast<uint16_t>(again_.size());
  const auto available = load_acquire<uint16_t>(areas_[1] + kIndex);
  if (static_cast<uint16_t>(available - used) < count) {
    return fail(EINVAL, fmt::format("{} requests are in flight of a virtqueue whose indices are {} "
                                    "and {}",
                                    count, available, used));
  }
  next_used_ = shown_used_ = told_used_ = used;
  next_available_ = seen_available_ = fetched_ = static_cast<uint16_t>(used + count);
  return count;
}

Result<void> SplitQueue::note_taken(Chain& chain) {
  inflight_->taken(chain.id_);
  return {};
}

void SplitQueue::show() {
  if (shown_used_ == next_used_) return;
  store_release<uint16_t>(areas_[2] + kIndex, next_used_);
  shown_used_ = next_used_;
  if (inflight_) inflight_->shown(shown_used_);
}

bool SplitQueue::publish() {
  show();
  const uint16_t before = std::exchange(told_used_, shown_used_);
  if (before == shown_used_) return false;
  // The driver asks for interrupts and then looks at the index; we the other way round.
  full_fence();
  const bool wanted = driver_wants_interrupt(before);
  shown_once_ = true;
  return wanted;
}

bool SplitQueue::is_awaited() const {
  return has(kEventIndex) && is_event_between(told_used_, next_used_);
}

bool SplitQueue::driver_wants_interrupt(uint16_t before) const {
  const uint8_t* available = areas_[1];
  if (has(kNotifyOnEmpty) && in_flight() == 0 &&
      load_relaxed<uint16_t>(available + kIndex) == next_available_)
    return true;
  if (!has(kEventIndex)) return (load_relaxed<uint16_t>(available + kFlags) & kNoInterrupt) == 0;
  return !shown_once_ || is_event_between(before, shown_used_);
}

// The entry that the driver awaits is one of these.
bool SplitQueue::is_event_between(uint16_t first, uint16_t end) const {
  const auto event = load_relaxed<uint16_t>(areas_[1] + kEntries + size_ * kAvailableEntryBytes);
  return static_cast<uint16_t>(end - event - 1) < static_cast<uint16_t>(end - first);
}

bool SplitQueue::enable_notifications() {
  uint8_t* used = areas_[2];
  if (has(kEventIndex)) {
    store_relaxed<uint16_t>(used + kEntries + size_ * kUsedEntryBytes, next_available_);
  } else {
    store_relaxed<uint16_t>(used + kFlags, 0);
  }
  full_fence();
  return to_resubmit() != 0 || load_relaxed<uint16_t>(areas_[1] + kIndex) != next_available_;
}

// An event index that lies behind is not reached again before the index has gone once around.
void SplitQueue::disable_notifications() {
  if (!has(kEventIndex)) store_relaxed<uint16_t>(areas_[2] + kFlags, kNoNotify);
}

}  // namespace platter::virtio
