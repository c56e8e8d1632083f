// ZoneTable: the zones of a disk: their write pointers and states, and who may write where (virtio
// 1.3, 5.2.6). The data is its user's: a range is claimed first and filled then.
//
// A zone that has to be opened where no more may be open has another one closed: the one that was
// opened by a write the longest ago. A zone may be finished in any state and takes no place for it.
//
// Any thread. The table's lock is held for a look at a zone or two; a zone is not reset while a
// range of it is being filled.
#pragma once

#include <cstdint>
#include <mutex>
#include <shared_mutex>
#include <span>
#include <vector>

#include "block/zoned.h"
#include "protocol/memory/page_table.h"

namespace platter::protocol {

struct ZoneSettings {
  block::ZonedCharacteristics characteristics;
  uint64_t capacity = 0;            // of each zone
  uint32_t conventional_zones = 0;  // which come first
};

class ZoneTable {
 public:
  static constexpr uint64_t kMaxZones = uint64_t{1} << 17;

  // EINVAL: zones that cannot be, of a disk of so many bytes.
  static Result<void> check(const ZoneSettings& settings, uint64_t disk_bytes);
  // What check() accepts.
  ZoneTable(const ZoneSettings& settings, uint64_t disk_bytes);

  const block::ZonedCharacteristics& characteristics() const { return settings_.characteristics; }
  // Where the zone of `offset` ends.
  uint64_t zone_end(uint64_t offset) const;
  bool is_conventional(uint64_t offset) const;
  // Whether all of a range is in one zone, or in zones that are written as any disk is.
  bool is_whole(uint64_t offset, uint64_t length) const;

  size_t report(uint64_t offset, std::span<block::Zone> zones) const;

  // A range that was taken to be filled. While it lives the zone is not reset.
  struct Claim {
    uint64_t offset;
    std::shared_lock<std::shared_mutex> filling;
  };
  // For a write within one zone.
  Result<Claim> claim(uint64_t offset, uint64_t length);
  // At the write pointer of the zone that begins at `offset`.
  Result<Claim> claim_append(uint64_t offset, uint64_t length);

  // As block::Zoned has it. What is reset becomes zeroes in `pages`.
  Result<void> manage(block::ZoneAction action, uint64_t offset, uint64_t length, PageTable& pages);

 private:
  struct Slot {
    std::shared_mutex filling;
    // Guarded by mutex_.
    uint64_t write_pointer = 0;
    block::ZoneState state = block::ZoneState::kEmpty;
  };

  uint32_t index_of(uint64_t offset) const {
    return static_cast<uint32_t>(offset / settings_.characteristics.zone_size);
  }
  uint64_t start_of(uint32_t index) const { return index * settings_.characteristics.zone_size; }
  uint64_t writable_end(uint32_t index) const;
  block::Zone describe(uint32_t index) const;
  Result<void> check_managed(block::ZoneAction action, uint64_t offset, uint64_t length) const;

  // With mutex_ held.
  Result<void> check_write(uint32_t index, uint64_t offset, uint64_t length) const;
  Result<void> take(uint32_t index, uint64_t offset, uint64_t length);
  Result<void> open(uint32_t index, block::ZoneState how);
  Result<void> close(uint32_t index);
  void finish(uint32_t index);
  void set_state(uint32_t index, block::ZoneState state);

  void reset(uint32_t index, PageTable& pages);

  const ZoneSettings settings_;
  const uint64_t disk_bytes_;
  std::vector<Slot> slots_;
  mutable std::mutex mutex_;
  uint32_t open_ = 0;
  uint32_t active_ = 0;
  std::vector<uint32_t> implicitly_open_;  // the longest first; kept where there is a limit
};

}  // namespace platter::protocol
