#include "vhost_user/driver_ring.h"

#include "virtio/ring_memory.h"

namespace platter::front_end {
namespace {

using virtio::full_fence;
using virtio::kDescriptorBytes;
using virtio::kDescriptorIndirect;
using virtio::kDescriptorNext;
using virtio::kDescriptorWrite;
using virtio::load_acquire;
using virtio::load_relaxed;
using virtio::store_relaxed;
using virtio::store_release;

// Available and used ring begin alike; after the entries comes the other side's event index.
constexpr uint64_t kFlags = 0;
constexpr uint64_t kIndex = 2;
constexpr uint64_t kEntries = 4;
constexpr uint64_t kAvailableEntryBytes = 2;
constexpr uint64_t kUsedEntryBytes = 8;
constexpr uint64_t kEventIndexBytes = 2;
constexpr uint16_t kOff = 1;
// So far away that it is not reached before interrupts are asked for again.
constexpr uint16_t kFarBehind = 0x8000;

// Of a packed ring: flags of an entry, and of the structures that suppress events.
constexpr uint16_t kAvailable = 1 << 7;
constexpr uint16_t kUsed = 1 << 15;
constexpr uint64_t kEventFlags = 2;
constexpr uint64_t kEventBytes = 4;
constexpr uint16_t kEventsOn = 0;
constexpr uint16_t kEventsAtPosition = 2;

uint16_t write_flag(const Piece& piece) { return piece.device_writes ? kDescriptorWrite : 0; }

}  // namespace

DriverRing::DriverRing(GuestRam& ram, const RingOptions& options, uint64_t driver_bytes,
                       uint64_t device_bytes)
    : ram_(ram),
      options_(options),
      free_(options.size),
      slots_of_(options.size),
      descriptor_area_(ram.take(options.size * kDescriptorBytes, 4096)),
      driver_area_(ram.take(driver_bytes, 4096)),
      device_area_(ram.take(device_bytes, 4096)) {
  if (options.indirect)
    tables_ = ram.take(uint64_t{options.size} * kMaxIndirect * kDescriptorBytes);
}

std::unique_ptr<DriverRing> DriverRing::make(GuestRam& ram, const RingOptions& options) {
  if (options.packed) return std::make_unique<PackedRing>(ram, options);
  return std::make_unique<SplitRing>(ram, options);
}

SplitRing::SplitRing(GuestRam& ram, const RingOptions& options)
    : DriverRing(ram, options, kEntries + options.size * kAvailableEntryBytes + kEventIndexBytes,
                 kEntries + options.size * kUsedEntryBytes + kEventIndexBytes),
      next_free_(options.size) {
  for (uint32_t i = 0; i < options.size; ++i) next_free_[i] = static_cast<uint16_t>(i + 1);
}

void SplitRing::write(uint8_t* at, const virtio::Descriptor& raw) {
  store_relaxed<uint64_t>(at, raw.address);
  store_relaxed<uint32_t>(at + 8, raw.bytes);
  store_relaxed<uint16_t>(at + 12, raw.flags);
  store_relaxed<uint16_t>(at + 14, raw.link);
}

void SplitRing::expose(uint16_t head) {
  const uint64_t place = added_++ % options_.size * kAvailableEntryBytes;
  store_relaxed<uint16_t>(available() + kEntries + place, head);
}

std::optional<uint16_t> SplitRing::add(std::span<const Piece> pieces) {
  const uint32_t count = slots(pieces);
  if (count > free_) return std::nullopt;
  const uint16_t head = first_free_;
  uint16_t last = head;
  for (uint32_t i = 0; i < pieces.size(); ++i) {
    const bool more = i + 1 < pieces.size();
    const auto flags = static_cast<uint16_t>(write_flag(pieces[i]) | (more ? kDescriptorNext : 0));
    if (options_.indirect) {
      const auto next = static_cast<uint16_t>(more ? i + 1 : 0);
      put_in_table(table(head), i, {pieces[i].address, pieces[i].bytes, flags, next});
    } else {
      last = i == 0 ? head : next_free_[last];
      put(last, {pieces[i].address, pieces[i].bytes, flags, more ? next_free_[last] : uint16_t{0}});
    }
  }
  if (options_.indirect) {
    const auto bytes = static_cast<uint32_t>(pieces.size() * kDescriptorBytes);
    put(head, {table(head), bytes, kDescriptorIndirect, 0});
  }
  first_free_ = next_free_[last];
  free_ -= count;
  slots_of_[head] = static_cast<uint16_t>(count);
  expose(head);
  return head;
}

bool SplitRing::publish() {
  const uint16_t before = published_;
  if (before == added_) return false;
  store_release<uint16_t>(available() + kIndex, added_);
  published_ = added_;
  // The device asks to be told and then looks at the index; we the other way round.
  full_fence();
  if (!options_.event_index) return (load_relaxed<uint16_t>(used() + kFlags) & kOff) == 0;
  const auto event = load_relaxed<uint16_t>(used() + kEntries + options_.size * kUsedEntryBytes);
  return static_cast<uint16_t>(added_ - event - 1) < static_cast<uint16_t>(added_ - before);
}

bool SplitRing::any_used() const { return load_acquire<uint16_t>(used() + kIndex) != used_; }

std::optional<Used> SplitRing::collect() {
  if (!any_used()) return std::nullopt;
  const uint8_t* entry = used() + kEntries + used_++ % options_.size * kUsedEntryBytes;
  const Used done = {load_relaxed<uint32_t>(entry), load_relaxed<uint32_t>(entry + 4)};
  if (done.id >= options_.size || slots_of_[done.id] == 0) return done;
  auto last = static_cast<uint16_t>(done.id);
  for (uint32_t i = 1; i < slots_of_[done.id]; ++i) last = next_free_[last];
  next_free_[last] = first_free_;
  first_free_ = static_cast<uint16_t>(done.id);
  free_ += std::exchange(slots_of_[done.id], uint16_t{0});
  return done;
}

void SplitRing::want_interrupt(bool wanted) {
  if (options_.event_index) {
    const auto event = static_cast<uint16_t>(wanted ? used_ : used_ - kFarBehind);
    store_relaxed<uint16_t>(available() + kEntries + options_.size * kAvailableEntryBytes, event);
  } else {
    store_relaxed<uint16_t>(available() + kFlags, wanted ? 0 : kOff);
  }
  full_fence();
}

PackedRing::PackedRing(GuestRam& ram, const RingOptions& options)
    : DriverRing(ram, options, kEventBytes, kEventBytes) {
  for (uint32_t i = options.size; i > 0; --i) free_ids_.push_back(static_cast<uint16_t>(i - 1));
}

void PackedRing::Position::advance(uint32_t by, uint32_t size) {
  index += by;
  if (index < size) return;
  index -= size;
  wrap = !wrap;
}

void PackedRing::write(uint8_t* at, const virtio::Descriptor& raw) {
  store_relaxed<uint64_t>(at, raw.address);
  store_relaxed<uint32_t>(at + 8, raw.bytes);
  store_relaxed<uint16_t>(at + 12, raw.link);
}

// The first entry of a batch is shown last: the device stops there until all of it is written.
void PackedRing::put(const virtio::Descriptor& raw) {
  uint8_t* at = descriptor(next_.index);
  write(at, raw);
  const auto flags = static_cast<uint16_t>(raw.flags | (next_.wrap ? kAvailable : kUsed));
  if (first_ == nullptr) {
    first_ = at;
    first_flags_ = flags;
  } else {
    store_relaxed<uint16_t>(at + 14, flags);
  }
  next_.advance(1, options_.size);
  ++unshown_;
}

std::optional<uint16_t> PackedRing::add(std::span<const Piece> pieces) {
  const uint32_t count = slots(pieces);
  if (count > free_ || free_ids_.empty()) return std::nullopt;
  const uint16_t id = free_ids_.back();
  free_ids_.pop_back();
  for (uint32_t i = 0; i < pieces.size(); ++i) {
    const virtio::Descriptor raw = {pieces[i].address, pieces[i].bytes, write_flag(pieces[i]), id};
    if (options_.indirect) {
      uint8_t* at = ram_.at(table(id)) + i * kDescriptorBytes;
      write(at, raw);
      store_relaxed<uint16_t>(at + 14, raw.flags);
    } else {
      const bool more = i + 1 < pieces.size();
      put({raw.address, raw.bytes, static_cast<uint16_t>(raw.flags | (more ? kDescriptorNext : 0)),
           id});
    }
  }
  if (options_.indirect) {
    const auto bytes = static_cast<uint32_t>(pieces.size() * kDescriptorBytes);
    put({table(id), bytes, kDescriptorIndirect, id});
  }
  free_ -= count;
  slots_of_[id] = static_cast<uint16_t>(count);
  return id;
}

bool PackedRing::publish() {
  if (first_ == nullptr) return false;
  store_release<uint16_t>(first_ + 14, first_flags_);
  first_ = nullptr;
  const uint32_t shown = std::exchange(unshown_, 0);
  full_fence();
  const uint8_t* device = ram_.at(device_area());
  const auto flags = load_relaxed<uint16_t>(device + kEventFlags);
  if (flags != kEventsAtPosition || !options_.event_index) return flags == kEventsOn;
  // Counted from the start of the round that the next entry is in.
  const auto bits = load_relaxed<uint16_t>(device);
  const bool same_round = ((bits & 0x8000) != 0) == next_.wrap;
  const int64_t event = int64_t{bits & 0x7fff} - (same_round ? 0 : int64_t{options_.size});
  return event < next_.index && event >= int64_t{next_.index} - shown;
}

bool PackedRing::any_used() const {
  const auto flags = load_acquire<uint16_t>(descriptor(used_.index) + 14);
  return ((flags & kAvailable) != 0) == used_.wrap && ((flags & kUsed) != 0) == used_.wrap;
}

std::optional<Used> PackedRing::collect() {
  if (!any_used()) return std::nullopt;
  const uint8_t* at = descriptor(used_.index);
  const Used done = {load_relaxed<uint16_t>(at + 12), load_relaxed<uint32_t>(at + 8)};
  const bool known = done.id < options_.size && slots_of_[done.id] != 0;
  used_.advance(known ? slots_of_[done.id] : 1, options_.size);
  if (!known) return done;
  free_ += std::exchange(slots_of_[done.id], uint16_t{0});
  free_ids_.push_back(static_cast<uint16_t>(done.id));
  return done;
}

void PackedRing::want_interrupt(bool wanted) {
  uint8_t* driver = ram_.at(driver_area());
  if (!wanted) {
    store_relaxed<uint16_t>(driver + kEventFlags, kOff);
  } else if (options_.event_index) {
    store_relaxed<uint16_t>(driver, used_.bits());
    store_release<uint16_t>(driver + kEventFlags, kEventsAtPosition);
  } else {
    store_relaxed<uint16_t>(driver + kEventFlags, kEventsOn);
  }
  full_fence();
}

uint32_t PackedRing::base() const { return used_.bits() | uint32_t{used_.bits()} << 16; }

}  // namespace platter::front_end
