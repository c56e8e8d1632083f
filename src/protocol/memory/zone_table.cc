#include "protocol/memory/zone_table.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/math.h"
#include "base/try.h"

namespace platter::protocol {

using block::Zone;
using block::ZoneAction;
using block::ZoneModel;
using block::ZoneState;
using block::ZoneType;

namespace {

constexpr uint64_t kMinZoneBytes = 4096;

bool is_open(ZoneState state) {
  return state == ZoneState::kImplicitlyOpen || state == ZoneState::kExplicitlyOpen;
}
bool is_active(ZoneState state) { return is_open(state) || state == ZoneState::kClosed; }

}  // namespace

Result<void> ZoneTable::check(const ZoneSettings& settings, uint64_t disk_bytes) {
  const block::ZonedCharacteristics& zones = settings.characteristics;
  if (!base::is_power_of_two(zones.zone_size) || zones.zone_size < kMinZoneBytes) {
    return fail(EINVAL, fmt::format("zone-size is {}; it must be a power of two of {} or more",
                                    zones.zone_size, kMinZoneBytes));
  }
  if (disk_bytes == 0 || !base::is_aligned(disk_bytes, zones.write_granularity)) {
    return fail(EINVAL, fmt::format("The size of a zoned disk must be a multiple of {}, and not 0",
                                    zones.write_granularity));
  }
  if (zones.zone_size < zones.write_granularity)
    return fail(EINVAL, "zone-size is smaller than request-alignment");
  const uint64_t count = base::divide_round_up(disk_bytes, zones.zone_size);
  if (count > kMaxZones) {
    return fail(EINVAL, fmt::format("zone-size {} makes {} zones; there can be {}", zones.zone_size,
                                    count, kMaxZones));
  }
  if (settings.capacity == 0 || settings.capacity > zones.zone_size ||
      !base::is_aligned(settings.capacity, zones.write_granularity)) {
    return fail(EINVAL, fmt::format("zone-capacity must be a multiple of {}, and at most zone-size",
                                    zones.write_granularity));
  }
  if (zones.model == ZoneModel::kHostAware && settings.capacity != zones.zone_size)
    return fail(EINVAL, "The zones of a host-aware disk can be written whole: no zone-capacity");
  if (settings.conventional_zones > count) {
    return fail(EINVAL, fmt::format("conventional-zones is {}; the disk has {} zones",
                                    settings.conventional_zones, count));
  }
  if (zones.max_active != 0 && zones.max_open > zones.max_active)
    return fail(EINVAL, "max-open-zones must not exceed max-active-zones");
  if (zones.max_append > settings.capacity ||
      !base::is_aligned(zones.max_append, zones.write_granularity)) {
    return fail(EINVAL, fmt::format("max-append-bytes must be a multiple of {}, and at most what a "
                                    "zone holds",
                                    zones.write_granularity));
  }
  if (zones.model == ZoneModel::kHostAware && zones.max_append != 0)
    return fail(EINVAL,
                "The zones of a host-aware disk cannot be appended to: no max-append-bytes");
  return {};
}

ZoneTable::ZoneTable(const ZoneSettings& settings, uint64_t disk_bytes)
    : settings_(settings),
      disk_bytes_(disk_bytes),
      slots_(base::divide_round_up(disk_bytes, settings.characteristics.zone_size)) {
  implicitly_open_.reserve(settings.characteristics.max_open);
  for (uint32_t index = 0; index < slots_.size(); ++index) {
    const bool conventional = index < settings_.conventional_zones;
    if (conventional) slots_[index].state = ZoneState::kNoWritePointer;
    slots_[index].write_pointer = conventional ? zone_end(start_of(index)) : start_of(index);
  }
}

uint64_t ZoneTable::zone_end(uint64_t offset) const {
  return std::min(start_of(index_of(offset)) + settings_.characteristics.zone_size, disk_bytes_);
}

uint64_t ZoneTable::writable_end(uint32_t index) const {
  return std::min(start_of(index) + settings_.capacity, disk_bytes_);
}

bool ZoneTable::is_conventional(uint64_t offset) const {
  return index_of(offset) < settings_.conventional_zones;
}

bool ZoneTable::is_whole(uint64_t offset, uint64_t length) const {
  return settings_.characteristics.model == ZoneModel::kHostAware ||
         is_conventional(offset + length - 1) || length <= zone_end(offset) - offset;
}

// ---- Report

Zone ZoneTable::describe(uint32_t index) const {
  const uint64_t start = start_of(index);
  ZoneType type = settings_.characteristics.model == ZoneModel::kHostManaged
                      ? ZoneType::kSequentialRequired
                      : ZoneType::kSequentialPreferred;
  if (is_conventional(start)) type = ZoneType::kConventional;
  const uint64_t end = zone_end(start);
  return {.offset = start,
          .length = end - start,
          .capacity = (type == ZoneType::kConventional ? end : writable_end(index)) - start,
          .write_pointer = slots_[index].write_pointer,
          .type = type,
          .state = slots_[index].state};
}

size_t ZoneTable::report(uint64_t offset, std::span<Zone> zones) const {
  const uint32_t first = index_of(offset);
  const size_t count = std::min<size_t>(zones.size(), slots_.size() - first);
  std::lock_guard guard(mutex_);
  for (uint32_t i = 0; i < count; ++i) zones[i] = describe(first + i);
  return count;
}

// ---- Writing

Result<void> ZoneTable::check_write(uint32_t index, uint64_t offset, uint64_t length) const {
  const Slot& zone = slots_[index];
  const bool halves =
      !base::is_aligned(offset | length, settings_.characteristics.write_granularity);
  if (settings_.characteristics.model == ZoneModel::kHostAware) {
    if (halves) return fail(block::kZoneInvalid, "A write is not of whole blocks");
    return {};
  }
  if (zone.state == ZoneState::kFull) return fail(block::kZoneInvalid, "The zone is full");
  if (halves || offset != zone.write_pointer) {
    return fail(block::kZoneUnaligned,
                fmt::format("A write at {} is not at the zone's write pointer, {}, or not of whole "
                            "blocks",
                            offset, zone.write_pointer));
  }
  if (length > writable_end(index) - offset)
    return fail(block::kZoneInvalid, "A write reaches past what the zone holds");
  return {};
}

// The write pointer of a zone that takes writes anywhere is where the last of them ended.
Result<void> ZoneTable::take(uint32_t index, uint64_t offset, uint64_t length) {
  Slot& zone = slots_[index];
  if (zone.state != ZoneState::kFull) PLATTER_TRY(open(index, ZoneState::kImplicitlyOpen));
  zone.write_pointer = std::max(zone.write_pointer, offset + length);
  if (zone.write_pointer == writable_end(index)) finish(index);
  return {};
}

Result<ZoneTable::Claim> ZoneTable::claim(uint64_t offset, uint64_t length) {
  if (is_conventional(offset)) return Claim{offset, {}};
  const uint32_t index = index_of(offset);
  Claim claim{offset, std::shared_lock(slots_[index].filling)};
  std::lock_guard guard(mutex_);
  PLATTER_TRY(check_write(index, offset, length));
  PLATTER_TRY(take(index, offset, length));
  return claim;
}

Result<ZoneTable::Claim> ZoneTable::claim_append(uint64_t offset, uint64_t length) {
  const uint32_t index = index_of(offset);
  if (is_conventional(offset) || settings_.characteristics.model == ZoneModel::kHostAware)
    return fail(block::kZoneInvalid, "Only zones that must be written in order are appended to");
  if (offset != start_of(index))
    return fail(block::kZoneInvalid, fmt::format("No zone begins at {}", offset));
  Claim claim{offset, std::shared_lock(slots_[index].filling)};
  std::lock_guard guard(mutex_);
  claim.offset = slots_[index].write_pointer;
  PLATTER_TRY(check_write(index, claim.offset, length));
  PLATTER_TRY(take(index, claim.offset, length));
  return claim;
}

// ---- States

void ZoneTable::set_state(uint32_t index, ZoneState state) {
  ZoneState& now = slots_[index].state;
  open_ += is_open(state);
  open_ -= is_open(now);
  active_ += is_active(state);
  active_ -= is_active(now);
  if (settings_.characteristics.max_open != 0) {
    if (now == ZoneState::kImplicitlyOpen) std::erase(implicitly_open_, index);
    if (state == ZoneState::kImplicitlyOpen) implicitly_open_.push_back(index);
  }
  now = state;
}

Result<void> ZoneTable::open(uint32_t index, ZoneState how) {
  const ZoneState now = slots_[index].state;
  if (now == how || now == ZoneState::kExplicitlyOpen) return {};
  const block::ZonedCharacteristics& zones = settings_.characteristics;
  if (!is_active(now) && zones.max_active != 0 && active_ == zones.max_active)
    return fail(block::kZoneActiveLimit, "Too many zones are active");
  if (!is_open(now) && zones.max_open != 0 && open_ == zones.max_open) {
    if (implicitly_open_.empty()) return fail(block::kZoneOpenLimit, "Too many zones are open");
    set_state(implicitly_open_.front(), ZoneState::kClosed);
  }
  set_state(index, how);
  return {};
}

Result<void> ZoneTable::close(uint32_t index) {
  const Slot& zone = slots_[index];
  if (!is_active(zone.state))
    return fail(block::kZoneInvalid, "The zone is empty or full: it cannot be closed");
  const bool untouched = zone.write_pointer == start_of(index);
  set_state(index, untouched ? ZoneState::kEmpty : ZoneState::kClosed);
  return {};
}

void ZoneTable::finish(uint32_t index) {
  slots_[index].write_pointer = zone_end(start_of(index));
  set_state(index, ZoneState::kFull);
}

void ZoneTable::reset(uint32_t index, PageTable& pages) {
  const uint64_t start = start_of(index);
  const std::unique_lock filling(slots_[index].filling);
  pages.zero(start, zone_end(start) - start);
  std::lock_guard guard(mutex_);
  slots_[index].write_pointer = start;
  set_state(index, ZoneState::kEmpty);
}

Result<void> ZoneTable::check_managed(ZoneAction action, uint64_t offset, uint64_t length) const {
  const bool whole = length != 0 && offset < disk_bytes_ && length <= disk_bytes_ - offset &&
                     offset == start_of(index_of(offset)) &&
                     offset + length == zone_end(offset + length - 1);
  if (!whole) {
    return fail(block::kZoneInvalid,
                fmt::format("{} bytes at {} are not whole zones", length, offset));
  }
  if (action == ZoneAction::kResetAll) {
    if (length == disk_bytes_) return {};
    return fail(block::kZoneInvalid, "Only all zones are reset together");
  }
  if (is_conventional(offset))
    return fail(block::kZoneInvalid, "A conventional zone has no state to change");
  return {};
}

Result<void> ZoneTable::manage(ZoneAction action, uint64_t offset, uint64_t length,
                               PageTable& pages) {
  PLATTER_TRY(check_managed(action, offset, length));
  const uint32_t end = index_of(offset + length - 1) + 1;
  for (uint32_t i = std::max(index_of(offset), settings_.conventional_zones); i < end; ++i) {
    if (action == ZoneAction::kReset || action == ZoneAction::kResetAll) {
      reset(i, pages);
      continue;
    }
    std::lock_guard guard(mutex_);
    switch (action) {
      case ZoneAction::kOpen:
        if (slots_[i].state == ZoneState::kFull)
          return fail(block::kZoneInvalid, "The zone is full: it cannot be opened");
        PLATTER_TRY(open(i, ZoneState::kExplicitlyOpen));
        break;
      case ZoneAction::kClose: PLATTER_TRY(close(i)); break;
      default: finish(i);
    }
  }
  return {};
}

}  // namespace platter::protocol
