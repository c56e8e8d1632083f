#include "virtio/queue.h"

#include <fmt/format.h>

#include <cerrno>

#include "base/assert.h"
#include "base/math.h"
#include "base/prefetch.h"
#include "base/try.h"
#include "virtio/features.h"
#include "virtio/packed_queue.h"
#include "virtio/ring_memory.h"
#include "virtio/split_queue.h"

namespace platter::virtio {
namespace {

constexpr const char* kAreaNames[] = {"descriptor area", "driver area", "device area"};

Result<void> check_shape(const QueueOptions& options) {
  const bool packed = (options.features & kPackedRing) != 0;
  if (options.size == 0 || options.size > QueueOptions::kMaxSize ||
      (!packed && !base::is_power_of_two(options.size))) {
    return fail(EINVAL, fmt::format("A {} virtqueue cannot have {} entries",
                                    packed ? "packed" : "split", options.size));
  }
  const InflightMemory& inflight = options.inflight;
  if (!inflight.bytes.empty() && inflight.entries < options.size) {
    return fail(EINVAL, fmt::format("A virtqueue of {} entries has a region for {} in flight",
                                    options.size, inflight.entries));
  }
  return {};
}

}  // namespace

Queue::Queue(const QueueOptions& options)
    : size_(options.size), options_(options), tracks_(!options.inflight.bytes.empty()) {
  if (has(kInOrder)) returned_.resize(size_);
}

Result<std::unique_ptr<Queue>> Queue::make(const QueueOptions& options,
                                           std::shared_ptr<const GuestMemory> memory) {
  PLATTER_TRY(check_shape(options));
  std::unique_ptr<Queue> queue;
  if ((options.features & kPackedRing) != 0) {
    queue = std::make_unique<PackedQueue>(options);
  } else {
    queue = std::make_unique<SplitQueue>(options);
  }
  PLATTER_TRY(queue->set_memory(std::move(memory)));
  if (queue->tracks_) {
    PLATTER_ASSIGN(queue->to_resubmit_, queue->track());
  } else {
    PLATTER_TRY(queue->check_state());
  }
  return queue;
}

Result<void> Queue::check_state() const {
  const QueueState& state = options_.state;
  const auto within = [&](uint16_t position) { return (position & 0x7fff) < size_; };
  if (has(kPackedRing)) {
    if (within(state.available) && within(state.used)) return {};
    return fail(EINVAL, "The state of a packed virtqueue lies outside of the ring");
  }
  if (static_cast<uint16_t>(state.available - state.used) <= size_) return {};
  return fail(EINVAL, "More of a split virtqueue is used than was available");
}

Result<void> Queue::set_memory(std::shared_ptr<const GuestMemory> memory) {
  const uint64_t addresses[] = {options_.descriptor_area, options_.driver_area,
                                options_.device_area};
  const auto shapes = area_shapes();
  Areas areas;
  for (size_t i = 0; i < areas.size(); ++i) {
    areas[i] = memory->contiguous(addresses[i], shapes[i].bytes);
    // The host's address counts too: fields are loaded whole.
    if (areas[i] == nullptr || !base::is_aligned(addresses[i], shapes[i].alignment) ||
        !base::is_aligned(reinterpret_cast<uintptr_t>(areas[i]), shapes[i].alignment)) {
      broken_ = true;
      return fail(EINVAL, fmt::format("The {} of a virtqueue, {} bytes at {:#x}, {}", kAreaNames[i],
                                      shapes[i].bytes, addresses[i],
                                      areas[i] == nullptr ? "is not memory of the guest"
                                                          : "is not aligned"));
    }
  }
  generations_.remove_if([](const Generation& generation) { return generation.in_flight == 0; });
  generations_.push_back({.memory = std::move(memory)});
  set_areas(areas);
  return {};
}

uint64_t Queue::answer_bytes() const { return area_shapes()[has(kPackedRing) ? 0 : 2].bytes; }

uint64_t Queue::answer_address() const {
  return has(kPackedRing) ? options_.descriptor_area : options_.device_area;
}

Result<bool> Queue::take(Chain& chain) {
  const bool again = to_resubmit_ != 0;
  PLATTER_ASSIGN(const bool taken, again ? take_again(resubmitted_, chain) : take_next(chain));
  if (!taken) return false;
  if (slots_in_flight_ + chain.slots_ > size_)
    return fail(EINVAL, "More requests are in flight than a virtqueue has entries");
  if (again) {
    ++resubmitted_;
    --to_resubmit_;
  } else if (tracks_) {
    PLATTER_TRY(note_taken(chain));
  }
  return true;
}

Result<bool> Queue::pop(Chain& chain) {
  if (broken_) return fail(EINVAL, "The virtqueue is broken");
  PLATTER_ASSERT(chain.users_ == nullptr);
  chain.begin();
  auto taken = take(chain);
  if (!taken) broken_ = true;
  if (!taken || !*taken) return taken;
  chain.sequence_ = next_sequence_++;
  chain.users_ = &generations_.back().in_flight;
  ++*chain.users_;
  ++in_flight_;
  slots_in_flight_ += chain.slots_;
  return true;
}

void Queue::let_go(Chain& chain) {
  PLATTER_ASSERT(chain.users_ != nullptr && *chain.users_ != 0);
  if (--*chain.users_ == 0 && chain.users_ != &generations_.back().in_flight)
    generations_.remove_if([&](const Generation& old) { return &old.in_flight == chain.users_; });
  chain.users_ = nullptr;
  --in_flight_;
}

void Queue::drop(Chain& chain) {
  let_go(chain);
  dropped_ = true;
}

void Queue::push(Chain& chain, uint32_t written) {
  PLATTER_ASSERT(!dropped_ && written <= chain.writable_bytes_);
  let_go(chain);
  if (returned_.empty()) {
    slots_in_flight_ -= chain.slots_;
    write_used({chain.id_, chain.slots_, chain.inflight_, written});
    return;
  }
  returned_[chain.sequence_ % size_] = {true, {chain.id_, chain.slots_, chain.inflight_, written}};
  for (Returned* oldest = &returned_[oldest_sequence_ % size_]; oldest->back;
       oldest = &returned_[oldest_sequence_ % size_]) {
    slots_in_flight_ -= oldest->used.slots;
    write_used(oldest->used);
    oldest->back = false;
    ++oldest_sequence_;
  }
}

Result<void> Queue::add_indirect(const Descriptor& descriptor, Chain& chain) {
  if (!has(kIndirectDescriptors))
    return fail(EINVAL, "A descriptor is indirect, which was not negotiated");
  if (descriptor.bytes == 0 || descriptor.bytes % kDescriptorBytes != 0) {
    return fail(EINVAL,
                fmt::format("A table of indirect descriptors has {} bytes", descriptor.bytes));
  }
  const uint8_t* table = memory().contiguous(descriptor.address, descriptor.bytes);
  if (table == nullptr) {
    return fail(EINVAL, fmt::format("A table of indirect descriptors at {:#x} is not memory of the "
                                    "guest",
                                    descriptor.address));
  }
  const bool packed = has(kPackedRing);
  const uint32_t entries = descriptor.bytes / kDescriptorBytes;
  uint32_t at = 0;
  // Each adds a piece, of which there are few: a long table or a loop ends there.
  for (uint32_t count = 0; count < entries; ++count) {
    const uint8_t* place = table + size_t{at} * kDescriptorBytes;
    const Descriptor entry = packed ? packed_descriptor(place) : split_descriptor(place);
    if ((entry.flags & kDescriptorIndirect) != 0)
      return fail(EINVAL, "A table of indirect descriptors names another");
    PLATTER_TRY(chain.add(entry, memory()));
    if (packed) {
      ++at;
      continue;
    }
    if ((entry.flags & kDescriptorNext) == 0) return {};
    at = entry.link;
    if (at >= entries) return fail(EINVAL, "An indirect descriptor names one past its table");
  }
  if (!packed) return fail(EINVAL, "Indirect descriptors form a loop");
  return {};
}

void Queue::fetch_ahead(std::span<const Descriptor> firsts) const {
  std::array<std::pair<const uint8_t*, const uint8_t*>, kFetchedAhead> tables;
  size_t count = 0;
  for (const Descriptor& first : firsts) {
    const uint8_t* at = memory().contiguous(first.address, first.bytes);
    if (at == nullptr) continue;
    base::prefetch_to_read(at);
    if ((first.flags & kDescriptorIndirect) == 0 || first.bytes < 2 * kDescriptorBytes) continue;
    const uint8_t* last = at + base::align_down(first.bytes, kDescriptorBytes) - kDescriptorBytes;
    base::prefetch_to_read(last);
    tables[count++] = {at, last};
  }
  for (const auto& [first, last] : std::span(tables).first(count)) {
    // The status often lies in the line of the header.
    const auto [status, status_rest] = copy_descriptor_words(last);
    if (const uint8_t* at = memory().contiguous(status, 1)) base::prefetch_to_write(at);
    const auto [header, header_rest] = copy_descriptor_words(first);
    if (const uint8_t* at = memory().contiguous(header, 1)) base::prefetch_to_read(at);
  }
}

}  // namespace platter::virtio
