// The requests that a device has taken from a virtqueue and not yet answered, noted in memory that
// outlives the device's process: whoever serves the queue next does them again, once (the
// vhost-user protocol, "Inflight I/O tracking", version 1). For Queue alone.
//
// The process may be killed between any two stores: their order is the specification's. The memory
// is shared with a front-end that may write anything there: it is copied once, by the constructor,
// and the copy is judged by recover(); from then on the memory is only written.
//
// Not thread-safe. Nothing is allocated after begin() or recover(), unless a driver makes the same
// descriptor available again and again.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "platter/error.h"
#include "virtio/chain.h"

namespace platter::virtio {

// Where one queue's requests are noted.
struct InflightMemory {
  std::span<uint8_t> bytes;  // inflight_bytes() at least, 8-byte aligned; empty: nowhere
  uint16_t entries = 0;      // at least as many as the ring has
  std::shared_ptr<const void> keep = nullptr;
};

// The length of one queue's part, and so the distance to the next.
uint64_t inflight_bytes(bool packed, uint16_t entries);
// As if the queue had never been served. `bytes` is where its part begins.
void forget_inflight(uint8_t* bytes);

class InflightRegion {
 public:
  // It was used before, and recover() must follow; otherwise begin().
  bool in_use() const;

 protected:
  InflightRegion(InflightMemory memory, uint64_t header_bytes, uint64_t entry_bytes, uint32_t size);

  // EINVAL: of another version or another length.
  Result<void> check_header() const;
  void begin_header();
  template <typename T>
  T copied(uint64_t offset) const;
  template <typename T>
  void store(uint64_t offset, T value);
  uint64_t entry(uint32_t index) const { return header_bytes_ + index * entry_bytes_; }
  // 0 or 1.
  Result<bool> copied_flag(uint64_t offset) const;
  void drop_copy() { copy_ = {}; }

  const InflightMemory memory_;
  const uint64_t header_bytes_;
  const uint64_t entry_bytes_;
  const uint32_t size_;  // of the ring
  uint64_t counter_ = 0;

 private:
  std::vector<uint8_t> copy_;
};

class SplitInflight final : public InflightRegion {
 public:
  SplitInflight(InflightMemory memory, uint32_t size);

  // Nothing is in flight, and the used index is this.
  void begin(uint16_t used);
  // The heads that are in flight, in the order in which they were taken. EINVAL: the region is not
  // what a device leaves.
  Result<std::vector<uint16_t>> recover(uint16_t used);

  // A head was made available; before anything is done for it.
  void taken(uint16_t head);
  // It is written to the used ring; before the index shows it.
  void returned(uint16_t head);
  // The used index is this.
  void shown(uint16_t used);

 private:
  uint16_t last_batch_head_ = 0;
  std::vector<uint16_t> batch_;  // returned and not shown
};

class PackedInflight final : public InflightRegion {
 public:
  struct Request {
    uint16_t entry;  // of the region
    std::vector<Descriptor> descriptors;
  };
  struct Recovered {
    uint16_t used;  // where the next used descriptor goes; bit 15 is the wrap counter
    std::vector<Request> requests;  // in the order in which they were taken
  };

  PackedInflight(InflightMemory memory, uint32_t size);

  void begin(uint16_t used);
  // `flags_at` reads the flags of a descriptor of the ring.
  Result<Recovered> recover(const std::function<uint16_t(uint16_t index)>& flags_at);

  // A descriptor of the chain that taken() ends, as it stands in the ring.
  void note(const Descriptor& descriptor) { noted_.push_back(descriptor); }
  // The chain that was noted, by its entry of the region. EINVAL: more is out than the ring has
  // room for.
  Result<uint16_t> taken();
  // The chain of that entry is answered.
  void returned(uint16_t entry) { batch_.push_back(entry); }
  // Around the store that shows what was returned; the next used descriptor goes to `used`.
  void before_show(uint16_t used);
  void after_show();

 private:
  // Of the used ring, as the region has it: now, and before the batch that is being shown.
  struct UsedPositions {
    uint16_t now;
    uint16_t old;
  };
  UsedPositions copied_positions() const;
  void store_positions(UsedPositions positions);
  Result<uint32_t> read_free_list(uint16_t head, std::vector<bool>& seen);
  Result<Request> read_request(uint16_t head, std::vector<bool>& seen);

  std::vector<Descriptor> noted_;
  std::vector<uint16_t> next_;    // of an entry that is free, or out in a chain
  std::vector<uint16_t> last_;    // of the chain that begins here
  std::vector<uint16_t> length_;  // likewise
  std::vector<uint16_t> batch_;   // returned and not shown
  uint16_t free_head_ = 0;
  uint32_t free_ = 0;
  uint16_t used_ = 0;  // as the driver has seen it
};

}  // namespace platter::virtio
