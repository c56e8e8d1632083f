// Requests of zoned disks (virtio 1.3, 5.2.6).

#include <algorithm>
#include <array>

#include "base/bytes.h"
#include "virtio/blk/request.h"

namespace platter::virtio::blk {
namespace {

using block::Zone;
using block::ZoneAction;

constexpr size_t kReportHeaderBytes = 64;
constexpr size_t kDescriptorBytes = 64;
constexpr size_t kAppendSectorBytes = 8;
constexpr size_t kReportedAtOnce = 16;
constexpr size_t kMaxReported = size_t{1} << 24;

enum DescriptorField : size_t {
  kCapacity = 0,
  kStart = 8,
  kWritePointer = 16,
  kType = 24,
  kState = 25,
};

using Descriptors = std::array<uint8_t, kReportedAtOnce * kDescriptorBytes>;

Executor::Outcome plain(Status status) { return {.status = status, .written = 0}; }

void store_zones(std::span<uint8_t> bytes, std::span<const Zone> zones) {
  std::ranges::fill(bytes, uint8_t{0});
  for (const Zone& zone : zones) {
    base::store_little<uint64_t>(bytes, kCapacity, zone.capacity / kSectorBytes);
    base::store_little<uint64_t>(bytes, kStart, zone.offset / kSectorBytes);
    base::store_little<uint64_t>(bytes, kWritePointer, zone.write_pointer / kSectorBytes);
    bytes[kType] = static_cast<uint8_t>(zone.type);
    bytes[kState] = static_cast<uint8_t>(zone.state);
    bytes = bytes.subspan(kDescriptorBytes);
  }
}

ZoneAction action_of(Kind kind) {
  switch (kind) {
    case Kind::kZoneOpen: return ZoneAction::kOpen;
    case Kind::kZoneClose: return ZoneAction::kClose;
    case Kind::kZoneFinish: return ZoneAction::kFinish;
    case Kind::kZoneReset: return ZoneAction::kReset;
    default: return ZoneAction::kResetAll;
  }
}

}  // namespace

Status Executor::zone_status(const Error& error) {
  switch (error.code()) {
    case block::kZoneInvalid: return Status::kZoneInvalidCommand;
    case block::kZoneUnaligned: return Status::kZoneUnalignedPointer;
    case block::kZoneOpenLimit: return Status::kZoneOpenResource;
    case block::kZoneActiveLimit: return Status::kZoneActiveResource;
    case ENOTSUP: return Status::kUnsupported;
    default: return Status::kIoError;
  }
}

bool Executor::leaves_zone(uint64_t offset, uint64_t bytes) const {
  const uint64_t zone_size = properties_.zoned->zone_size;
  return bytes > zone_size - offset % zone_size;
}

bool Executor::may_merge(uint64_t first, const Request& next) const {
  if (!properties_.zoned) return true;
  const uint64_t zone_sectors = properties_.zoned->zone_size / kSectorBytes;
  const uint64_t end = next.sector + next.to_driver.size() / kSectorBytes;
  return !next.out && end <= (first / zone_sectors + 1) * zone_sectors;
}

io::Task<Result<bool>> Executor::meets_required_zone(uint64_t offset, uint64_t bytes) {
  std::array<Zone, kReportedAtOnce> zones;
  for (const uint64_t end = offset + bytes; offset < end;) {
    const auto found = co_await backend_.zone_report(offset, zones);
    if (!found) co_return std::unexpected(found.error());
    for (const Zone& zone : std::span(zones).first(*found)) {
      if (zone.offset < end && zone.type == block::ZoneType::kSequentialRequired) co_return true;
      offset = zone.offset + zone.length;
    }
    if (*found == 0) break;
  }
  co_return false;
}

io::Task<Result<Executor::Outcome>> Executor::zone_request(Request request) {
  switch (request.kind) {
    case Kind::kZoneAppend: return zone_append(request);
    case Kind::kZoneReport: return zone_report(request);
    default: return zone_manage(request);
  }
}

// Before the status the driver has room for the sector that the data came to.
io::Task<Result<Executor::Outcome>> Executor::zone_append(Request request) {
  if (properties_.read_only) co_return plain(Status::kIoError);
  if (properties_.zoned->max_append == 0) co_return plain(Status::kUnsupported);
  const uint64_t bytes = request.from_driver.size();
  if (request.to_driver.size() != kAppendSectorBytes || !in_range(request.sector, bytes))
    co_return plain(Status::kZoneInvalidCommand);
  const auto at = co_await backend_.zone_append(request.sector * kSectorBytes, request.from_driver);
  if (!at) co_return plain(zone_status(at.error()));
  std::array<uint8_t, kAppendSectorBytes> sector;
  base::store_little<uint64_t>(sector, 0, *at / kSectorBytes);
  request.to_driver.copy_from(sector);
  co_return Outcome{.status = Status::kOk, .written = kAppendSectorBytes};
}

io::Task<Result<Executor::Outcome>> Executor::zone_report(Request request) {
  const size_t room = request.to_driver.size();
  const uint64_t capacity = backend_.size() / kSectorBytes;
  if (room < kReportHeaderBytes || request.sector >= capacity)
    co_return plain(Status::kZoneInvalidCommand);
  const size_t most = std::min((room - kReportHeaderBytes) / kDescriptorBytes, kMaxReported);
  std::array<Zone, kReportedAtOnce> zones;
  Descriptors descriptors;
  size_t count = 0;
  for (uint64_t offset = request.sector * kSectorBytes;
       count < most && offset / kSectorBytes < capacity;) {
    const size_t wanted = std::min(kReportedAtOnce, most - count);
    const auto found = co_await backend_.zone_report(offset, std::span(zones).first(wanted));
    if (!found) co_return plain(zone_status(found.error()));
    if (*found == 0) break;
    const auto bytes = std::span(descriptors).first(*found * kDescriptorBytes);
    store_zones(bytes, std::span(zones).first(*found));
    request.to_driver.sub(kReportHeaderBytes + count * kDescriptorBytes, bytes.size())
        .copy_from(bytes);
    count += *found;
    offset = zones[*found - 1].offset + zones[*found - 1].length;
  }
  std::array<uint8_t, kReportHeaderBytes> header{};
  base::store_little<uint64_t>(header, 0, count);
  request.to_driver.sub(0, kReportHeaderBytes).copy_from(header);
  co_return Outcome{
      .status = Status::kOk,
      .written = static_cast<uint32_t>(kReportHeaderBytes + count * kDescriptorBytes)};
}

io::Task<Result<Executor::Outcome>> Executor::zone_manage(Request request) {
  if (properties_.read_only) co_return plain(Status::kIoError);
  const uint64_t size = backend_.size();
  uint64_t offset = 0;
  uint64_t length = size;
  if (request.kind != Kind::kZoneResetAll) {
    if (request.sector >= size / kSectorBytes) co_return plain(Status::kZoneInvalidCommand);
    offset = request.sector * kSectorBytes;
    length = std::min(properties_.zoned->zone_size, size - offset);
  }
  const auto done = co_await backend_.zone_manage(action_of(request.kind), offset, length);
  co_return plain(done ? Status::kOk : zone_status(done.error()));
}

}  // namespace platter::virtio::blk
