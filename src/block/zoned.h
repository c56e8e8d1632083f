// Zoned disks: cut into zones, most of which are written from front to back only, at their write
// pointer (virtio 1.3, 5.2; the ZBC and ZNS standards).
//
// Offsets and lengths are in bytes; offsets count from the start of the disk. All zones have one
// size, but for the last one, which may be smaller.
#pragma once

#include <cerrno>
#include <cstdint>
#include <span>

#include "block/types.h"
#include "io/buffer.h"
#include "io/task.h"
#include "platter/error.h"

namespace platter::block {

// The numbers are virtio's.
enum class ZoneModel : uint8_t {
  kHostManaged = 1,  // sequential zones take writes at their write pointer alone
  kHostAware = 2,    // they take writes anywhere
};
enum class ZoneType : uint8_t {
  kConventional = 1,
  kSequentialRequired = 2,
  kSequentialPreferred = 3,
};
enum class ZoneState : uint8_t {
  kNoWritePointer = 0,  // of conventional zones
  kEmpty = 1,
  kImplicitlyOpen = 2,  // by a write
  kExplicitlyOpen = 3,  // by ZoneAction::kOpen
  kClosed = 4,
  kReadOnly = 13,
  kFull = 14,
  kOffline = 15,
};

struct Zone {
  uint64_t offset = 0;
  uint64_t length = 0;
  uint64_t capacity = 0;       // what of it can be written
  uint64_t write_pointer = 0;  // the end of the zone, where there is none, or the zone is full
  ZoneType type = ZoneType::kConventional;
  ZoneState state = ZoneState::kNoWritePointer;
  bool operator==(const Zone&) const = default;
};

struct ZonedCharacteristics {
  ZoneModel model = ZoneModel::kHostManaged;
  uint64_t zone_size = 0;
  uint32_t max_open = 0;           // zones; 0: no limit
  uint32_t max_active = 0;         // open or closed; 0: no limit
  uint64_t max_append = 0;         // 0: nothing can be appended
  uint32_t write_granularity = 1;  // of writes to sequential zones; a power of two
  bool operator==(const ZonedCharacteristics&) const = default;
};

enum class ZoneAction : uint8_t { kOpen, kClose, kFinish, kReset, kResetAll };

// Codes of the errors that zones bring, of writes as well.
inline constexpr int kZoneInvalid = EINVAL;    // not in this zone, not so, or not in its state
inline constexpr int kZoneUnaligned = ESPIPE;  // not at the write pointer, or of half blocks
inline constexpr int kZoneOpenLimit = ETOOMANYREFS;  // the last two are Linux's own choice
inline constexpr int kZoneActiveLimit = EOVERFLOW;

// What the driver of a zoned disk hands out. Any thread, with other requests in flight.
class Zoned {
 public:
  virtual ~Zoned() = default;
  virtual ZonedCharacteristics zoned_characteristics() const = 0;
  // Fills `zones` with those from the one on that `offset` is in; how many there were. EINVAL:
  // `offset` is past the end.
  virtual io::Task<Result<size_t>> zone_report(uint64_t offset, std::span<Zone> zones) = 0;
  // Of whole zones, one after the other, up to the first that fails. Conventional ones are
  // kZoneInvalid; kResetAll, which is of the whole disk, passes them over.
  virtual io::Task<Result<void>> zone_manage(ZoneAction action, uint64_t offset,
                                             uint64_t length) = 0;
  // Writes at the write pointer of the zone that begins at `offset`; where that was.
  virtual io::Task<Result<uint64_t>> zone_append(uint64_t offset, io::BufferList buffers,
                                                 WriteFlags flags) = 0;
};

}  // namespace platter::block
