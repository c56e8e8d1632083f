// A virtio-blk driver over a vhost-user connection: what a guest's does, for tests, benchmarks and
// fuzzers. Requests of all types; each queue is used by one thread, queues by several.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "support/virtio_blk_numbers.h"
#include "vhost_user/driver_ring.h"
#include "vhost_user/front_end.h"
#include "virtio/features.h"

namespace platter::front_end {

using namespace support::virtio_blk;

// Bits of features.
inline constexpr uint64_t kFeatureReadOnly = 1U << 5;
inline constexpr uint64_t kFeatureFlush = 1U << 9;
inline constexpr uint64_t kFeatureConfigWce = 1U << 11;
inline constexpr uint64_t kFeatureMultiQueue = 1U << 12;
inline constexpr uint64_t kFeatureDiscard = 1U << 13;
inline constexpr uint64_t kFeatureWriteZeroes = 1U << 14;
inline constexpr uint64_t kFeatureZoned = 1U << 17;
inline constexpr uint32_t kSectorBytes = 512;

struct DeviceOptions {
  uint32_t queues = 1;
  RingOptions ring;  // what of it the back-end does not offer is left out
  uint64_t ram_bytes = 64ULL << 20;
  uint32_t buffer_bytes = 64 * 1024;  // of each request that may be in flight
  // Completions are looked for, and the back-end is told to send no interrupts.
  bool polling = false;
  // Of the device, beside those that are always asked for where they are offered.
  uint64_t features = 0;
  // Beside those that are always asked for where they are offered.
  uint64_t protocol_features = protocol_feature::kReplyAck;
  // Gives the memory region by region, in so many.
  uint32_t memory_slots = 0;
};

struct Done {
  uint32_t slot;
  uint8_t status;
  uint32_t written;
};

class BlockQueue {
 public:
  BlockQueue(GuestRam& ram, const DeviceOptions& options);

  // A request of one piece of data, in the slot's own buffer; nothing where all slots are taken.
  // Nothing is told to the device before publish().
  std::optional<uint32_t> add(uint32_t type, uint64_t sector, uint32_t bytes);
  void publish();
  std::optional<Done> collect();
  // Sleeps until there is something to collect; false: there was not in time. Not for polling.
  bool wait(std::chrono::milliseconds limit);

  // Which slot the next add() takes.
  uint32_t next_slot() const { return free_slots_.back(); }
  std::span<uint8_t> buffer(uint32_t slot) const {
    return ram_.bytes(buffer_address(slot), buffer_bytes_);
  }
  // Guest addresses.
  uint64_t buffer_address(uint32_t slot) const { return buffers_ + uint64_t{slot} * buffer_bytes_; }
  uint64_t status_address(uint32_t slot) const;
  // Where a zone append in this slot has put its data.
  uint64_t append_sector(uint32_t slot) const;
  uint32_t in_flight() const { return slots_ - static_cast<uint32_t>(free_slots_.size()); }

  DriverRing& ring() { return *ring_; }
  void kick();
  int kick_file() const { return kick_.get(); }
  int call_file() const { return call_.get(); }
  int error_file() const { return error_.get(); }

 private:
  static constexpr uint8_t kNoStatus = 0xff;

  uint64_t header(uint32_t slot) const { return headers_ + uint64_t{slot} * 64; }

  GuestRam& ram_;
  std::unique_ptr<DriverRing> ring_;
  uint32_t slots_;
  uint32_t buffer_bytes_;
  uint64_t headers_;  // and statuses, each beside its header
  uint64_t buffers_;
  std::vector<uint32_t> free_slots_;
  std::vector<uint32_t> slot_of_;  // by the ring's identifier
  Descriptor kick_;
  Descriptor call_;
  Descriptor error_;
};

class BlockDevice {
 public:
  // Connected, negotiated, its queues at work.
  static Result<std::unique_ptr<BlockDevice>> connect(const std::string& path,
                                                      const DeviceOptions& options);

  // Takes the queues from the back-end, which finishes what it has of them.
  Result<void> stop();
  // Gives them to it, as they are.
  Result<void> start();
  // Takes one queue from the back-end; what it has finished may be collected yet.
  Result<uint32_t> stop_queue(uint32_t index) { return front_end_->get_vring_base(index); }
  // Gives it another one instead: of another size, elsewhere in memory.
  Result<void> replace_queue(uint32_t index, uint32_t size);
  // To a back-end that was started anew, with what its predecessor left in flight.
  Result<void> reconnect(const std::string& path);

  // The back-end's state, while it has no queue.
  Result<std::vector<uint8_t>> save_state();
  Result<void> load_state(std::span<const uint8_t> state);
  // To another back-end, which has its state from the one before, the rings' positions included.
  Result<void> reconnect(const std::string& path, std::span<const uint8_t> state);

  // From now on the back-end marks the pages that it writes: bit by bit, from guest address 0 on.
  Result<void> start_log(int file);
  uint64_t log_bytes() const;

  FrontEnd& front_end() { return *front_end_; }
  GuestRam& ram() { return ram_; }
  BlockQueue& queue(uint32_t index) { return *queues_[index]; }
  // What tracks requests in flight, where that was negotiated.
  const Inflight& inflight() const { return *inflight_; }
  uint64_t features() const { return features_; }
  uint64_t protocol_features() const { return protocol_features_; }
  // The configuration space as it was at connect().
  std::span<const uint8_t> config() const { return config_; }
  uint64_t sectors() const;

  // One request on the first queue, from start to end; its status. ETIMEDOUT: it did not end.
  Result<uint8_t> run(uint32_t type, uint64_t sector, uint32_t bytes);
  Result<uint8_t> read(uint64_t sector, std::span<uint8_t> data);
  Result<uint8_t> write(uint64_t sector, std::span<const uint8_t> data);
  // kDiscard or kWriteZeroes.
  Result<uint8_t> clear(uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags = 0);
  Result<std::string> serial();

 private:
  BlockDevice(GuestRam ram, const DeviceOptions& options)
      : options_(options), ram_(std::move(ram)) {}

  Result<void> negotiate(const std::string& path);
  Result<void> give_memory();
  Result<void> give_queue(uint32_t index);
  Result<void> give_addresses(uint32_t index, uint32_t flags);

  DeviceOptions options_;
  GuestRam ram_;
  std::unique_ptr<FrontEnd> front_end_;
  std::vector<std::unique_ptr<BlockQueue>> queues_;
  uint64_t features_ = 0;
  uint64_t protocol_features_ = 0;
  std::vector<uint8_t> config_;
  std::optional<Inflight> inflight_;
  bool has_positions_ = false;  // the back-end, from a state
};

}  // namespace platter::front_end
