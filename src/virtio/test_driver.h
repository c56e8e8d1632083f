// The driver's side of a virtqueue, as a guest has it: for the tests of this room.
#pragma once

#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "virtio/features.h"
#include "virtio/queue.h"
#include "virtio/ring_memory.h"

namespace platter::virtio::test {

struct Buffer {
  uint64_t address;
  uint32_t bytes;
  bool write;
};

struct Used {
  uint16_t id;
  uint32_t written;
  bool operator==(const Used&) const = default;
};

// Two regions that are neighbours in the guest and lie apart here; rings in the first.
class Guest {
 public:
  static constexpr uint64_t kBase = 0x10000;
  static constexpr uint64_t kRegionBytes = 1 << 20;
  static constexpr uint64_t kMiddle = kBase + kRegionBytes;
  static constexpr uint64_t kEnd = kMiddle + kRegionBytes;
  static constexpr uint64_t kDescriptors = kBase;
  static constexpr uint64_t kDriverArea = kBase + 0x8000;
  static constexpr uint64_t kDeviceArea = kBase + 0x10000;
  static constexpr uint64_t kTables = kBase + 0x20000;
  static constexpr uint64_t kData = kBase + 0x80000;

  Guest() = default;
  // With memory of the caller's for the first region.
  explicit Guest(uint8_t* first) {
    regions_[0] = Bytes(first, [](uint8_t*) {});
  }

  uint8_t* at(uint64_t address) {
    const bool second = address >= kMiddle;
    return regions_[second].get() + (address - (second ? kMiddle : kBase));
  }
  std::shared_ptr<const GuestMemory> memory() {
    return *GuestMemory::make({{kMiddle, kRegionBytes, regions_[1].get(), regions_[1]},
                               {kBase, kRegionBytes, regions_[0].get(), regions_[0]}});
  }

 private:
  using Bytes = std::shared_ptr<uint8_t[]>;
  Bytes regions_[2] = {Bytes(new uint8_t[kRegionBytes]()), Bytes(new uint8_t[kRegionBytes]())};
};

class Driver {
 public:
  Driver(Guest& guest, const QueueOptions& options) : guest_(&guest), options_(options) {
    for (uint32_t i = 0; i < options.size; ++i) free_.push_back(static_cast<uint16_t>(i));
  }
  virtual ~Driver() = default;

  // The same driver before a copy of its memory.
  virtual std::unique_ptr<Driver> clone(Guest& guest) const = 0;

  size_t free() const { return free_.size(); }
  // Makes a request available; it takes one entry, where `indirect`, or one a buffer.
  virtual uint16_t add(const std::vector<Buffer>& buffers, bool indirect) = 0;
  virtual std::optional<Used> collect() = 0;
  // Asks for an interrupt at the next used entry, or for none.
  virtual void ask_for_interrupt(bool wanted) = 0;
  // Whether the device wants to hear of what was made available since the last question.
  virtual bool must_notify() = 0;

 protected:
  bool has(uint64_t feature) const { return (options_.features & feature) != 0; }
  // Fields that the device may look at, or write, at the same instant.
  template <typename T>
  void put(uint64_t address, T value) {
    store_release<T>(guest_->at(address), value);
  }
  template <typename T>
  T get(uint64_t address) {
    return load_acquire<T>(guest_->at(address));
  }
  uint64_t table(uint16_t id) const { return Guest::kTables + id * 64 * kDescriptorBytes; }

  Guest* guest_;
  const QueueOptions options_;
  std::deque<uint16_t> free_;
};

class SplitDriver final : public Driver {
 public:
  using Driver::Driver;

  std::unique_ptr<Driver> clone(Guest& guest) const override {
    auto copy = std::make_unique<SplitDriver>(*this);
    copy->guest_ = &guest;
    return copy;
  }
  void put_descriptor(uint64_t table, uint16_t index, const Buffer& buffer, uint16_t flags,
                      uint16_t next) {
    const uint64_t place = table + index * kDescriptorBytes;
    put<uint64_t>(place, buffer.address);
    put<uint32_t>(place + 8, buffer.bytes);
    put<uint16_t>(place + 12, static_cast<uint16_t>(flags | (buffer.write ? kDescriptorWrite : 0)));
    put<uint16_t>(place + 14, next);
  }
  void make_available(uint16_t head) {
    put<uint16_t>(options_.driver_area + 4 + available_ % options_.size * 2, head);
    put<uint16_t>(options_.driver_area + 2, ++available_);
  }

  uint16_t add(const std::vector<Buffer>& buffers, bool indirect) override {
    std::vector<uint16_t> taken;
    for (size_t i = 0; i < (indirect ? 1 : buffers.size()); ++i) {
      taken.push_back(free_.front());
      free_.pop_front();
    }
    const uint16_t head = taken.front();
    const uint64_t where = indirect ? table(head) : options_.descriptor_area;
    for (size_t i = 0; i < buffers.size(); ++i) {
      const bool last = i + 1 == buffers.size();
      const auto place = indirect ? static_cast<uint16_t>(i) : taken[i];
      const auto next = last ? uint16_t{0} : indirect ? static_cast<uint16_t>(i + 1) : taken[i + 1];
      put_descriptor(where, place, buffers[i], last ? 0 : kDescriptorNext, next);
    }
    if (indirect) {
      const auto bytes = static_cast<uint32_t>(buffers.size() * kDescriptorBytes);
      put_descriptor(options_.descriptor_area, head, {table(head), bytes, false},
                     kDescriptorIndirect, 0);
    }
    taken_[head] = taken;
    make_available(head);
    return head;
  }

  std::optional<Used> collect() override {
    if (get<uint16_t>(options_.device_area + 2) == used_) return std::nullopt;
    const uint64_t entry = options_.device_area + 4 + used_++ % options_.size * 8;
    const Used used = {static_cast<uint16_t>(get<uint32_t>(entry)), get<uint32_t>(entry + 4)};
    for (const uint16_t index : taken_[used.id]) free_.push_back(index);
    taken_.erase(used.id);
    return used;
  }

  void ask_for_interrupt(bool wanted) override {
    if (!has(kEventIndex)) return put<uint16_t>(options_.driver_area, wanted ? 0 : 1);
    const auto event = static_cast<uint16_t>(wanted ? used_ : used_ - 0x4000);
    put<uint16_t>(options_.driver_area + 4 + options_.size * 2, event);
  }

  bool must_notify() override {
    const uint16_t before = std::exchange(told_, available_);
    if (!has(kEventIndex)) return get<uint16_t>(options_.device_area) == 0;
    const auto event = get<uint16_t>(options_.device_area + 4 + options_.size * 8);
    return static_cast<uint16_t>(available_ - event - 1) <
           static_cast<uint16_t>(available_ - before);
  }

 private:
  std::map<uint16_t, std::vector<uint16_t>> taken_;
  uint16_t available_ = 0;
  uint16_t used_ = 0;
  uint16_t told_ = 0;
};

class PackedDriver final : public Driver {
 public:
  using Driver::Driver;

  std::unique_ptr<Driver> clone(Guest& guest) const override {
    auto copy = std::make_unique<PackedDriver>(*this);
    copy->guest_ = &guest;
    return copy;
  }
  // The flags of an entry at `position` that is available.
  uint16_t available_flags(bool wrap) const { return wrap ? 1 << 7 : 1 << 15; }
  void put_descriptor(uint64_t place, const Buffer& buffer, uint16_t id, uint16_t flags) {
    put<uint64_t>(place, buffer.address);
    put<uint32_t>(place + 8, buffer.bytes);
    put<uint16_t>(place + 12, id);
    put<uint16_t>(place + 14, static_cast<uint16_t>(flags | (buffer.write ? kDescriptorWrite : 0)));
  }

  uint16_t add(const std::vector<Buffer>& buffers, bool indirect) override {
    const uint16_t id = free_.front();
    const size_t slots = indirect ? 1 : buffers.size();
    std::vector<uint16_t> taken(slots);
    for (uint16_t& each : taken) {
      each = free_.front();
      free_.pop_front();
    }
    if (indirect) {
      for (size_t i = 0; i < buffers.size(); ++i)
        put_descriptor(table(id) + i * kDescriptorBytes, buffers[i], 0, 0);
      const auto bytes = static_cast<uint32_t>(buffers.size() * kDescriptorBytes);
      put_entry({table(id), bytes, false}, id, kDescriptorIndirect);
    } else {
      for (size_t i = 0; i < slots; ++i)
        put_entry(buffers[i], id, i + 1 == slots ? 0 : kDescriptorNext);
    }
    taken_[id] = taken;
    return id;
  }

  std::optional<Used> collect() override {
    const uint64_t entry = options_.descriptor_area + used_ * kDescriptorBytes;
    const auto flags = get<uint16_t>(entry + 14);
    if (((flags & (1 << 7)) != 0) != used_wrap_ || ((flags & (1 << 15)) != 0) != used_wrap_)
      return std::nullopt;
    const Used used = {get<uint16_t>(entry + 12), get<uint32_t>(entry + 8)};
    const std::vector<uint16_t> taken = taken_.at(used.id);
    advance(used_, used_wrap_, taken.size());
    for (const uint16_t id : taken) free_.push_back(id);
    taken_.erase(used.id);
    return used;
  }

  void ask_for_interrupt(bool wanted) override {
    if (!wanted) return put<uint16_t>(options_.driver_area + 2, 1);
    put<uint16_t>(options_.driver_area, static_cast<uint16_t>(used_ | (used_wrap_ ? 0x8000 : 0)));
    put<uint16_t>(options_.driver_area + 2, has(kEventIndex) ? 2 : 0);
  }

  bool must_notify() override {
    const uint64_t before = std::exchange(told_, total_);
    const auto flags = get<uint16_t>(options_.device_area + 2);
    if (flags != 2) return flags == 0;
    const auto event = get<uint16_t>(options_.device_area);
    for (uint64_t entry = before; entry < total_; ++entry) {
      const bool wrap = entry / options_.size % 2 == 0;
      if (event == (entry % options_.size | (wrap ? 0x8000U : 0U))) return true;
    }
    return false;
  }

 private:
  void put_entry(const Buffer& buffer, uint16_t id, uint16_t flags) {
    put_descriptor(options_.descriptor_area + next_ * kDescriptorBytes, buffer, id,
                   static_cast<uint16_t>(flags | available_flags(wrap_)));
    advance(next_, wrap_, 1);
    ++total_;
  }
  void advance(uint32_t& index, bool& wrap, size_t by) const {
    index += static_cast<uint32_t>(by);
    if (index < options_.size) return;
    index -= options_.size;
    wrap = !wrap;
  }

  std::map<uint16_t, std::vector<uint16_t>> taken_;
  uint32_t next_ = 0;
  bool wrap_ = true;
  uint32_t used_ = 0;
  bool used_wrap_ = true;
  uint64_t total_ = 0;
  uint64_t told_ = 0;
};

inline QueueOptions options_of(uint32_t size, uint64_t features) {
  return {.size = size,
          .descriptor_area = Guest::kDescriptors,
          .driver_area = Guest::kDriverArea,
          .device_area = Guest::kDeviceArea,
          .features = features,
          .state = (features & kPackedRing) != 0 ? QueueOptions::kFreshPacked : QueueState{}};
}

inline std::unique_ptr<Driver> make_driver(Guest& guest, const QueueOptions& options) {
  if ((options.features & kPackedRing) != 0) return std::make_unique<PackedDriver>(guest, options);
  return std::make_unique<SplitDriver>(guest, options);
}

}  // namespace platter::virtio::test
