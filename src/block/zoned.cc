// The request path in front of a zoned driver: what only zoned disks have.

#include "block/zoned.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/math.h"
#include "base/probe.h"
#include "base/try.h"
#include "block/request.h"

namespace platter::block {

namespace {

Result<Zoned*> zones_of(const Node::State& s) {
  if (Zoned* zoned = s.driver->zoned()) return zoned;
  return fail(ENOTSUP, "The disk is not zoned");
}

Result<void> check_append(const Node::State& s, const ZonedCharacteristics& zones, uint64_t offset,
                          uint64_t bytes) {
  if (!base::range_within(offset, bytes, s.driver->size()))
    return fail(EIO, "A request reaches past the end of the image");
  if (zones.max_append == 0) return fail(ENOTSUP, "The disk's zones cannot be appended to");
  if (bytes == 0 || bytes > zones.max_append) {
    return fail(kZoneInvalid,
                "More than the disk takes at once, or nothing, is appended to a zone");
  }
  if (!base::is_aligned(offset | bytes, s.limits.request_alignment))
    return fail(kZoneUnaligned, "What is appended to a zone is not of whole blocks");
  return {};
}

// Through memory that the driver takes.
io::Task<Result<uint64_t>> append_placed(Zoned& zoned, const Limits& limits, uint64_t offset,
                                         io::BufferList buffers, WriteFlags flags) {
  if (memory_fits(limits, buffers)) co_return co_await zoned.zone_append(offset, buffers, flags);
  const io::AlignedBuffer bounce(buffers.size());
  buffers.copy_to(bounce.span());
  co_return co_await zoned.zone_append(offset, bounce.view(), flags);
}

}  // namespace

std::optional<ZonedCharacteristics> Node::zoned_characteristics() const {
  Zoned* zoned = state_->driver->zoned();
  if (zoned == nullptr) return std::nullopt;
  ZonedCharacteristics zones = zoned->zoned_characteristics();
  zones.max_append = std::min(zones.max_append, transfer_limit(state_->limits));
  return zones;
}

Result<void> Node::check_written_anywhere(std::string_view user) const {
  const auto zones = zoned_characteristics();
  if (!zones || zones->model != ZoneModel::kHostManaged) return {};
  return fail(ENOTSUP, fmt::format("Node '{}' is a host-managed zoned disk: {} cannot write to it",
                                   name(), user));
}

io::Task<Result<size_t>> Node::zone_report(uint64_t offset, std::span<Zone> zones) {
  auto zoned = zones_of(*state_);
  if (!zoned) return io::Task<Result<size_t>>::ready(std::unexpected(std::move(zoned).error()));
  return (*zoned)->zone_report(offset, zones);
}

io::Task<Result<void>> Node::zone_manage(ZoneAction action, uint64_t offset, uint64_t length) {
  State& s = *state_;
  PLATTER_CO_ASSIGN(Zoned * zoned, zones_of(s));
  if (!base::range_within(offset, length, s.driver->size()))
    co_return fail(EIO, "A request reaches past the end of the image");
  TrackedRange range(s, offset, length, {});
  co_await range.enter();
  Result<void> result = co_await zoned->zone_manage(action, offset, length);
  // What was reset reads as zeroes now.
  if (action == ZoneAction::kReset || action == ZoneAction::kResetAll) s.mark_dirty(offset, length);
  range.leave();
  co_return std::move(result);
}

io::Task<Result<uint64_t>> Node::zone_append(uint64_t offset, io::BufferList buffers,
                                             WriteFlags flags) {
  State& s = *state_;
  PLATTER_PROBE(node_request, s.name.c_str(), kProbedZoneAppend, offset, buffers.size());
  PLATTER_CO_ASSIGN(Zoned * zoned, zones_of(s));
  const ZonedCharacteristics zones = *zoned_characteristics();
  PLATTER_CO_TRY(check_append(s, zones, offset, buffers.size()));
  const bool flush_after = flags.has(WriteFlag::kFua) && !s.fua && !s.no_flush;
  if (!s.fua) flags = flags.without(WriteFlags(WriteFlag::kFua));
  const uint64_t length = std::min(zones.zone_size, s.driver->size() - offset);
  TrackedRange range(s, offset, length, flags);
  co_await range.enter();
  Result<uint64_t> at = co_await append_placed(*zoned, s.limits, offset, buffers, flags);
  // Where a part may be of what failed is not known.
  s.mark_dirty(at.value_or(offset), at ? buffers.size() : length);
  range.leave();
  if (!at) co_return std::move(at);
  s.check_threshold(*at + buffers.size());
  PLATTER_CO_TRY(co_await flush_if(s, flush_after));
  co_return std::move(at);
}

}  // namespace platter::block
