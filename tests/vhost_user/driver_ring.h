// The driver's side of a virtqueue (virtio 1.2, 2.7 and 2.8) in memory that a back-end in another
// process reads and writes at the same time. (virtio/test_driver.h has the like for a device in the
// same thread: simpler, and no use here.)
//
// A batch: add() until there is no room or no more to ask, publish() once, kick if that says so.
//
// Not thread-safe. Nothing is allocated after make(). What a back-end writes is believed as far as
// it can be told: an identifier that is not out is reported and changes nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "vhost_user/guest_ram.h"
#include "virtio/chain.h"

namespace platter::front_end {

struct Piece {
  uint64_t address;
  uint32_t bytes;
  bool device_writes;
};

struct Used {
  uint32_t id;
  uint32_t written;
};

struct RingOptions {
  uint32_t size = 128;  // a power of two
  bool packed = false;
  bool event_index = false;
  // Each request takes one entry, which leads to a table of its pieces.
  bool indirect = false;
};

class DriverRing {
 public:
  // Pieces of one request that goes by way of a table.
  static constexpr uint32_t kMaxIndirect = 64;

  static std::unique_ptr<DriverRing> make(GuestRam& ram, const RingOptions& options);
  virtual ~DriverRing() = default;
  DriverRing(const DriverRing&) = delete;
  DriverRing& operator=(const DriverRing&) = delete;

  // Guest addresses, for the back-end; and for tests that write what no driver writes.
  uint64_t descriptor_area() const { return descriptor_area_; }
  uint64_t driver_area() const { return driver_area_; }
  uint64_t device_area() const { return device_area_; }
  const RingOptions& options() const { return options_; }

  // By what it will be known; nothing where there is no room.
  virtual std::optional<uint16_t> add(std::span<const Piece> pieces) = 0;
  // The device sees what was added. True: and wants to be told.
  virtual bool publish() = 0;
  virtual std::optional<Used> collect() = 0;
  // Whether collect() has something.
  virtual bool any_used() const = 0;
  // At the next used entry, or for now at none. What was used before is not told: look once more.
  virtual void want_interrupt(bool wanted) = 0;
  // For SET_VRING_BASE: where a back-end goes on that knows nothing, all requests being done.
  virtual uint32_t base() const = 0;

 protected:
  DriverRing(GuestRam& ram, const RingOptions& options, uint64_t driver_bytes,
             uint64_t device_bytes);

  uint8_t* descriptor(uint32_t index) const {
    return ram_.at(descriptor_area_) + index * virtio::kDescriptorBytes;
  }
  uint64_t table(uint32_t id) const {
    return tables_ + uint64_t{id} * kMaxIndirect * virtio::kDescriptorBytes;
  }
  // How many entries a request takes.
  uint32_t slots(std::span<const Piece> pieces) const {
    return options_.indirect ? 1 : static_cast<uint32_t>(pieces.size());
  }

  GuestRam& ram_;
  const RingOptions options_;
  uint32_t free_;
  std::vector<uint16_t> slots_of_;  // by identifier; 0: not out

 private:
  uint64_t descriptor_area_;
  uint64_t driver_area_;
  uint64_t device_area_;
  uint64_t tables_ = 0;
};

class SplitRing final : public DriverRing {
 public:
  SplitRing(GuestRam& ram, const RingOptions& options);

  std::optional<uint16_t> add(std::span<const Piece> pieces) override;
  bool publish() override;
  std::optional<Used> collect() override;
  bool any_used() const override;
  void want_interrupt(bool wanted) override;
  uint32_t base() const override { return used_; }

  // What a driver would not do: any descriptor, and any head made available.
  void put(uint32_t index, const virtio::Descriptor& raw) { write(descriptor(index), raw); }
  void put_in_table(uint64_t table, uint32_t index, const virtio::Descriptor& raw) {
    write(ram_.at(table) + index * virtio::kDescriptorBytes, raw);
  }
  void expose(uint16_t head);

 private:
  static void write(uint8_t* at, const virtio::Descriptor& raw);
  uint8_t* available() const { return ram_.at(driver_area()); }
  uint8_t* used() const { return ram_.at(device_area()); }

  std::vector<uint16_t> next_free_;
  uint16_t first_free_ = 0;
  uint16_t added_ = 0;
  uint16_t published_ = 0;
  uint16_t used_ = 0;
};

class PackedRing final : public DriverRing {
 public:
  PackedRing(GuestRam& ram, const RingOptions& options);

  std::optional<uint16_t> add(std::span<const Piece> pieces) override;
  bool publish() override;
  std::optional<Used> collect() override;
  bool any_used() const override;
  void want_interrupt(bool wanted) override;
  uint32_t base() const override;

  // What a driver would not do: any descriptor at the place where the next one goes; `flags` are
  // beside those that make it available. publish() shows it.
  void put(const virtio::Descriptor& raw);

 private:
  struct Position {
    uint32_t index = 0;
    bool wrap = true;
    uint16_t bits() const { return static_cast<uint16_t>(index | (wrap ? 0x8000U : 0U)); }
    void advance(uint32_t by, uint32_t size);
  };
  void write(uint8_t* at, const virtio::Descriptor& raw);

  std::vector<uint16_t> free_ids_;
  Position next_;
  Position used_;
  uint8_t* first_ = nullptr;  // of what is not shown yet
  uint16_t first_flags_ = 0;
  uint32_t unshown_ = 0;
};

}  // namespace platter::front_end
