// memory, cut into zones.

#include <algorithm>

#include "base/try.h"
#include "protocol/memory/driver.h"

namespace platter::protocol {

using namespace block;

template <typename Fill>
Result<void> ZonedMemoryDriver::fill_zones(uint64_t offset, uint64_t length, Fill fill) {
  if (!zones_.is_whole(offset, length))
    return fail(kZoneInvalid, "A write reaches into a zone that is written in order");
  for (const uint64_t end = offset + length; offset < end;) {
    const uint64_t piece = std::min(end, zones_.zone_end(offset)) - offset;
    PLATTER_ASSIGN(const ZoneTable::Claim claim, zones_.claim(offset, piece));
    fill(offset, piece);
    offset += piece;
  }
  return {};
}

Limits ZonedMemoryDriver::limits() const {
  Limits limits = MemoryDriver::limits();
  limits.extends_on_write = false;
  return limits;
}

io::Task<Result<void>> ZonedMemoryDriver::write(uint64_t offset, io::BufferList buffers,
                                                WriteFlags) {
  return io::Task<Result<void>>::ready(
      fill_zones(offset, buffers.size(), [&, first = offset](uint64_t at, uint64_t length) {
        store(at, buffers.sub(at - first, length));
      }));
}

io::Task<Result<void>> ZonedMemoryDriver::zero(uint64_t offset, uint64_t length, WriteFlags) {
  return io::Task<Result<void>>::ready(
      fill_zones(offset, length, [this](uint64_t at, uint64_t piece) { pages_.zero(at, piece); }));
}

io::Task<Result<void>> ZonedMemoryDriver::discard(uint64_t offset, uint64_t length) {
  const bool managed = zones_.characteristics().model == ZoneModel::kHostManaged;
  if (managed && !zones_.is_conventional(offset + length - 1))
    return io::Task<Result<void>>::ready(fail_errno(ENOTSUP));
  return MemoryDriver::discard(offset, length);
}

io::Task<Result<size_t>> ZonedMemoryDriver::zone_report(uint64_t offset, std::span<Zone> zones) {
  if (offset >= size())
    return io::Task<Result<size_t>>::ready(fail(EINVAL, "There is no zone past the disk's end"));
  return io::Task<Result<size_t>>::ready(zones_.report(offset, zones));
}

io::Task<Result<void>> ZonedMemoryDriver::zone_manage(ZoneAction action, uint64_t offset,
                                                      uint64_t length) {
  return io::Task<Result<void>>::ready(zones_.manage(action, offset, length, pages_));
}

io::Task<Result<uint64_t>> ZonedMemoryDriver::zone_append(uint64_t offset, io::BufferList buffers,
                                                          WriteFlags) {
  auto append = [&]() -> Result<uint64_t> {
    PLATTER_ASSIGN(const ZoneTable::Claim claim, zones_.claim_append(offset, buffers.size()));
    store(claim.offset, buffers);
    return claim.offset;
  };
  return io::Task<Result<uint64_t>>::ready(append());
}

}  // namespace platter::protocol
