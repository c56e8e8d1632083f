// A request of a virtio-blk driver (virtio 1.3, 5.2.6): parsed out of a chain, and carried out on a
// backend.
#pragma once

#include <atomic>
#include <cstdint>

#include "block/backend.h"
#include "io/buffer.h"
#include "io/task.h"
#include "virtio/blk/properties.h"
#include "virtio/chain.h"

namespace platter::virtio::blk {

enum class Status : uint8_t {
  kOk = 0,
  kIoError = 1,
  kUnsupported = 2,
  kZoneInvalidCommand = 3,
  kZoneUnalignedPointer = 4,
  kZoneOpenResource = 5,
  kZoneActiveResource = 6,
};

// Types without the bit that tells the direction, and without the barrier of old drivers.
enum class Kind : uint32_t {
  kReadWrite = 0,
  kScsiCommand = 2,
  kFlush = 4,
  kGetId = 8,
  kDiscard = 10,
  kWriteZeroes = 12,
  kZoneAppend = 14,  // sent; asked for it is a secure erase
  kZoneReport = 16,
  kZoneOpen = 18,
  kZoneClose = 20,
  kZoneFinish = 22,
  kZoneReset = 24,
  kZoneResetAll = 26,
};

struct Request {
  Kind kind;
  bool out;  // the driver sends, as it says
  uint64_t sector;
  // What is between the header and the status byte. They point into the guest's memory.
  io::BufferList from_driver;
  io::BufferList to_driver;
  uint8_t* status;

  bool is_read() const { return kind == Kind::kReadWrite && !out; }
};

// The chain must stay as long as the request. EINVAL: there is no room for a header or a status:
// what the driver made of the queue means nothing.
Result<Request> parse(const Chain& chain);

// Carries requests out. Thread-safe: used by every queue of a device.
class Executor {
 public:
  // The backend and the properties outlive it; the disk's zones are the driver's affair only after
  // use_zones().
  Executor(block::Backend& backend, const Properties& properties)
      : backend_(backend), properties_(properties) {}

  struct Outcome {
    Status status;
    uint32_t written;  // bytes of data that the driver may read
    int error = 0;     // an errno: the disk has failed
  };
  // EINVAL: as of parse(). The status byte is not written.
  io::Task<Result<Outcome>> run(Request request);

  // Whether the driver has negotiated zones, which properties.zoned has.
  void use_zones(bool on) { uses_zones_.store(on, std::memory_order_relaxed); }

  // Whether so many bytes from `sector` on may be read or written at all.
  bool in_range(uint64_t sector, uint64_t bytes) const;
  // Whether a request may be carried out as one with those before it, which begin at `first`: not
  // if it ends in another zone. Where there are zones a write is on its own: one that fails takes
  // no other along.
  bool may_merge(uint64_t first, const Request& next) const;

 private:
  struct Range {
    uint64_t sector;
    uint32_t sectors;
    uint32_t flags;
  };

  io::Task<Result<Outcome>> read_or_write(Request request);
  io::Task<Result<Outcome>> flush();
  io::Task<Result<Outcome>> get_id(Request request);
  io::Task<Result<Outcome>> discard_or_zero(Request request);
  io::Task<Result<void>> apply(Kind kind, Range range);

  // ---- Zones (zone_request.cc)
  bool uses_zones() const { return uses_zones_.load(std::memory_order_relaxed); }
  static Status zone_status(const Error& error);
  io::Task<Result<Outcome>> zone_request(Request request);
  io::Task<Result<Outcome>> zone_append(Request request);
  io::Task<Result<Outcome>> zone_report(Request request);
  io::Task<Result<Outcome>> zone_manage(Request request);
  bool leaves_zone(uint64_t offset, uint64_t bytes) const;
  // Whether some of a range is in a zone that must be written in order.
  io::Task<Result<bool>> meets_required_zone(uint64_t offset, uint64_t bytes);

  block::Backend& backend_;
  const Properties& properties_;
  std::atomic<bool> uses_zones_ = false;
};

}  // namespace platter::virtio::blk
