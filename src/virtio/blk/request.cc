#include "virtio/blk/request.h"

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/bytes.h"
#include "base/math.h"
#include "base/try.h"

namespace platter::virtio::blk {
namespace {

constexpr size_t kHeaderBytes = 16;
constexpr size_t kStatusBytes = 1;
constexpr size_t kRangeBytes = 16;
constexpr uint32_t kOutBit = 1;
constexpr uint32_t kBarrierBit = UINT32_C(1) << 31;
constexpr uint32_t kUnmapFlag = 1;

Executor::Outcome plain(Status status) { return {.status = status, .written = 0}; }

Executor::Outcome outcome_of(const Result<void>& result) {
  if (result) return plain(Status::kOk);
  return {.status = Status::kIoError, .written = 0, .error = result.error().code()};
}

}  // namespace

// A driver may cut its header into pieces as it likes.
Result<Request> parse(const Chain& chain) {
  if (chain.readable_bytes() < kHeaderBytes)
    return fail(EINVAL, "virtio-blk: A request has no header");
  if (chain.writable_bytes() < kStatusBytes)
    return fail(EINVAL, "virtio-blk: A request has no room for its status");
  const io::BufferList readable(chain.readable());
  const io::BufferList writable(chain.writable());
  std::array<uint8_t, kHeaderBytes> header;
  readable.sub(0, kHeaderBytes).copy_to(header);
  const auto type = base::load_little<uint32_t>(header, 0);
  const iovec& last = chain.writable().back();
  return Request{
      .kind = static_cast<Kind>(type & ~(kOutBit | kBarrierBit)),
      .out = (type & kOutBit) != 0,
      .sector = base::load_little<uint64_t>(header, 8),
      .from_driver = readable.sub(kHeaderBytes, readable.size() - kHeaderBytes),
      .to_driver = writable.sub(0, writable.size() - kStatusBytes),
      .status = static_cast<uint8_t*>(last.iov_base) + last.iov_len - kStatusBytes,
  };
}

bool Executor::in_range(uint64_t sector, uint64_t bytes) const {
  const uint64_t block_sectors = properties_.logical_block_bytes / kSectorBytes;
  const uint64_t capacity = backend_.size() / kSectorBytes;
  return sector % block_sectors == 0 && bytes % properties_.logical_block_bytes == 0 &&
         bytes / kSectorBytes <= kMaxRequestSectors &&
         base::range_within(sector, bytes / kSectorBytes, capacity);
}

io::Task<Result<Executor::Outcome>> Executor::run(Request request) {
  using Outcomes = io::Task<Result<Outcome>>;
  switch (request.kind) {
    case Kind::kReadWrite: return read_or_write(request);
    case Kind::kFlush: return flush();
    case Kind::kGetId: return get_id(request);
    case Kind::kDiscard:
    case Kind::kWriteZeroes: return discard_or_zero(request);
    case Kind::kZoneAppend:
    case Kind::kZoneReport:
    case Kind::kZoneOpen:
    case Kind::kZoneClose:
    case Kind::kZoneFinish:
    case Kind::kZoneReset:
    case Kind::kZoneResetAll:
      // Only an append is sent.
      if (uses_zones() && request.out == (request.kind == Kind::kZoneAppend))
        return zone_request(request);
      break;
    case Kind::kScsiCommand: break;
  }
  return Outcomes::ready(plain(Status::kUnsupported));
}

io::Task<Result<Executor::Outcome>> Executor::read_or_write(Request request) {
  const io::BufferList data = request.out ? request.from_driver : request.to_driver;
  if (!in_range(request.sector, data.size())) co_return plain(Status::kIoError);
  if (request.out && properties_.read_only) co_return plain(Status::kIoError);
  const uint64_t offset = request.sector * kSectorBytes;
  if (request.out) {
    auto written = co_await backend_.write(offset, data);
    if (!written && uses_zones()) co_return plain(zone_status(written.error()));
    co_return outcome_of(written);
  }
  if (uses_zones() && leaves_zone(offset, data.size())) [[unlikely]] {
    const auto required = co_await meets_required_zone(offset, data.size());
    if (!required) co_return plain(zone_status(required.error()));
    if (*required) co_return plain(Status::kZoneInvalidCommand);
  }
  Outcome outcome = outcome_of(co_await backend_.read(offset, data));
  outcome.written = static_cast<uint32_t>(data.size());
  co_return outcome;
}

io::Task<Result<Executor::Outcome>> Executor::flush() {
  co_return outcome_of(co_await backend_.flush());
}

// The serial number, with an end only where there is room for one.
io::Task<Result<Executor::Outcome>> Executor::get_id(Request request) {
  std::array<uint8_t, kMaxSerialBytes> id{};
  std::copy_n(properties_.serial.begin(), std::min(properties_.serial.size(), id.size()),
              id.begin());
  const size_t bytes = std::min(id.size(), request.to_driver.size());
  request.to_driver.sub(0, bytes).copy_from(std::span(id).first(bytes));
  co_return Outcome{.status = Status::kOk, .written = static_cast<uint32_t>(bytes)};
}

io::Task<Result<Executor::Outcome>> Executor::discard_or_zero(Request request) {
  const bool zeroes = request.kind == Kind::kWriteZeroes;
  const bool offered = zeroes ? properties_.write_zeroes : properties_.discard;
  // One range is all that is offered.
  if (!offered || !request.out || request.from_driver.size() > kRangeBytes)
    co_return plain(Status::kUnsupported);
  if (request.from_driver.size() < kRangeBytes)
    co_return fail(EINVAL, "virtio-blk: The range of a discard or write-zeroes is cut short");
  std::array<uint8_t, kRangeBytes> bytes;
  request.from_driver.copy_to(bytes);
  const Range range = {.sector = base::load_little<uint64_t>(bytes, 0),
                       .sectors = base::load_little<uint32_t>(bytes, 8),
                       .flags = base::load_little<uint32_t>(bytes, 12)};
  if ((range.flags & ~(zeroes ? kUnmapFlag : 0)) != 0) co_return plain(Status::kUnsupported);
  const uint32_t most =
      zeroes ? properties_.max_write_zeroes_sectors : properties_.max_discard_sectors;
  if (range.sectors > most || properties_.read_only ||
      !in_range(range.sector, uint64_t{range.sectors} * kSectorBytes)) {
    co_return plain(Status::kIoError);
  }
  co_return outcome_of(co_await apply(request.kind, range));
}

io::Task<Result<void>> Executor::apply(Kind kind, Range range) {
  const uint64_t offset = range.sector * kSectorBytes;
  const uint64_t length = uint64_t{range.sectors} * kSectorBytes;
  if (kind == Kind::kDiscard) return backend_.discard(offset, length);
  const auto flags = (range.flags & kUnmapFlag) != 0
                         ? block::WriteFlags(block::WriteFlag::kMayUnmap)
                         : block::WriteFlags();
  return backend_.zero(offset, length, flags);
}

}  // namespace platter::virtio::blk
