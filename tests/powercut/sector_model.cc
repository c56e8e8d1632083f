#include "powercut/sector_model.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string>

#include "base/assert.h"
#include "base/try.h"
#include "fmt/format.h"
#include "workload/random.h"

namespace platter::powercut {

namespace {

std::string stamp_name(Stamp stamp) {
  if (stamp == kZeroStamp) return "zeroes";
  if (stamp == kBackingStamp) return "the backing file";
  return fmt::format("write #{}", stamp);
}

}  // namespace

SectorModel::SectorModel(uint64_t capacity, uint64_t sectors, uint64_t backing_sectors,
                         Stamp backing_seed)
    : settled_(capacity + 1, kZeroStamp),
      later_(capacity + 1),
      backing_sectors_(backing_sectors),
      backing_seed_(backing_seed) {
  std::fill_n(settled_.begin(), std::min(sectors, backing_sectors), kBackingStamp);
  settled_[capacity] = sectors;
}

void SectorModel::begin_write(uint64_t first, uint64_t count, Stamp stamp) {
  for (uint64_t sector = first; sector < first + count; ++sector) {
    if (later_[sector].empty()) unsettled_.push_back(sector);
    later_[sector].push_back({stamp, kInFlight});
  }
}

void SectorModel::end_write(uint64_t first, uint64_t count, Stamp stamp, bool durable) {
  ++clock_;
  for (uint64_t sector = first; sector < first + count; ++sector) {
    auto& writes = later_[sector];
    auto write = std::find_if(writes.rbegin(), writes.rend(),
                              [stamp](const Write& each) { return each.stamp == stamp; });
    PLATTER_ASSERT(write != writes.rend());
    write->completed_at = clock_;
    if (durable) {
      settled_[sector] = stamp;
      writes.clear();
    }
  }
}

void SectorModel::end_flush(uint64_t ticket) {
  size_t kept = 0;
  for (uint64_t sector : unsettled_) {
    auto& writes = later_[sector];
    auto settled = writes.end();
    for (auto write = writes.begin(); write != writes.end(); ++write) {
      if (write->completed_at <= ticket) settled = write;
    }
    if (settled != writes.end()) {
      settled_[sector] = settled->stamp;
      writes.erase(writes.begin(), settled + 1);
    }
    if (!writes.empty()) unsettled_[kept++] = sector;
  }
  unsettled_.resize(kept);
}

Stamp SectorModel::current(uint64_t sector) const {
  return later_[sector].empty() ? settled_[sector] : later_[sector].back().stamp;
}

std::vector<Stamp> SectorModel::content() const {
  std::vector<Stamp> stamps;
  for (uint64_t sector = 0; sector < sectors(); ++sector) stamps.push_back(current(sector));
  return stamps;
}

void SectorModel::begin_replace(std::span<const Stamp> content, uint64_t sectors) {
  for (uint64_t sector = 0; sector < content.size(); ++sector)
    begin_write(sector, 1, content[sector]);
  begin_resize(sectors);
}

void SectorModel::end_replace(std::span<const Stamp> content, uint64_t sectors) {
  for (uint64_t sector = 0; sector < content.size(); ++sector)
    end_write(sector, 1, content[sector], false);
  end_resize(sectors);
}

namespace {
constexpr size_t kPeriod = 64;
}  // namespace

void SectorModel::fill(std::span<uint8_t> sector_bytes, uint64_t sector, Stamp stamp) const {
  PLATTER_ASSERT(sector_bytes.size() == kSectorSize);
  bool zero = stamp == kZeroStamp;
  if (stamp == kBackingStamp) {
    // Every eighth run of four sectors of a backing file is a hole.
    zero = sector >= backing_sectors_ || sector / 4 % 8 == 7;
    stamp = backing_seed_;
  }
  if (zero) {
    std::memset(sector_bytes.data(), 0, kSectorSize);
  } else {
    // Every other stamp repeats itself, so that it can be compressed.
    const size_t period = stamp % 2 == 0 ? kSectorSize : kPeriod;
    workload::fill_pattern(sector_bytes.first(period), stamp * 0x9e3779b97f4a7c15,
                           sector * kSectorSize);
    for (size_t at = period; at < kSectorSize; at += period)
      std::memcpy(sector_bytes.data() + at, sector_bytes.data(), period);
  }
}

bool SectorModel::holds(std::span<const uint8_t> bytes, uint64_t sector, Stamp stamp) const {
  std::array<uint8_t, kSectorSize> want;
  fill(want, sector, stamp);
  return std::memcmp(bytes.data(), want.data(), kSectorSize) == 0;
}

Error SectorModel::unexpected_content(const char* when, uint64_t sector,
                                      std::span<const uint8_t> bytes) const {
  std::string allowed = stamp_name(settled_[sector]);
  for (const Write& write : later_[sector]) allowed += ", " + stamp_name(write.stamp);
  std::string found = "something else";
  if (holds(bytes, sector, kZeroStamp)) found = "zeroes";
  if (holds(bytes, sector, kBackingStamp)) found = "the backing file";
  for (Stamp stamp = kFirstWriteStamp; stamp < 4096; ++stamp) {
    if (holds(bytes, sector, stamp)) found = "an older " + stamp_name(stamp);
  }
  return Error(EIO, fmt::format("{}: sector {} (byte {}) may hold {}; found {}", when, sector,
                                sector * kSectorSize, allowed, found));
}

Result<void> SectorModel::expect_current(uint64_t first, std::span<const uint8_t> bytes) const {
  for (uint64_t i = 0; i < bytes.size() / kSectorSize; ++i) {
    auto got = bytes.subspan(i * kSectorSize, kSectorSize);
    if (!holds(got, first + i, current(first + i))) {
      return std::unexpected(unexpected_content("read", first + i, got));
    }
  }
  return {};
}

Result<void> SectorModel::settle(uint64_t first, std::span<const uint8_t> bytes) {
  for (uint64_t i = 0; i < bytes.size() / kSectorSize; ++i) {
    uint64_t sector = first + i;
    auto got = bytes.subspan(i * kSectorSize, kSectorSize);
    auto& writes = later_[sector];
    if (!holds(got, sector, settled_[sector])) {
      auto found = std::find_if(writes.begin(), writes.end(), [&](const Write& write) {
        return holds(got, sector, write.stamp);
      });
      if (found == writes.end()) {
        return std::unexpected(unexpected_content("after the cut", sector, got));
      }
      settled_[sector] = found->stamp;
    }
    writes.clear();
  }
  return {};
}

std::vector<Stamp> SectorModel::open_ended(uint64_t sector) const {
  std::vector<Stamp> stamps;
  const auto& writes = later_[sector];
  for (auto write = writes.rbegin(); write != writes.rend(); ++write) {
    stamps.push_back(write->stamp);
    if (write->completed_at != kInFlight) return stamps;
  }
  stamps.push_back(settled_[sector]);
  return stamps;
}

Result<void> SectorModel::adopt(uint64_t first, std::span<const uint8_t> bytes,
                                std::span<const Stamp> also) {
  ++clock_;
  for (uint64_t i = 0; i < bytes.size() / kSectorSize; ++i) {
    uint64_t sector = first + i;
    auto got = bytes.subspan(i * kSectorSize, kSectorSize);
    std::vector<Stamp> candidates = open_ended(sector);
    candidates.insert(candidates.end(), also.begin(), also.end());
    auto found = std::find_if(candidates.begin(), candidates.end(),
                              [&](Stamp stamp) { return holds(got, sector, stamp); });
    if (found == candidates.end()) {
      return std::unexpected(unexpected_content("after an open-ended request", sector, got));
    }
    if (later_[sector].empty()) unsettled_.push_back(sector);
    later_[sector].push_back({*found, clock_});
  }
  return {};
}

Result<void> SectorModel::settle_size(uint64_t sectors) {
  auto& writes = later_[capacity()];
  bool allowed = settled_[capacity()] == sectors ||
                 std::any_of(writes.begin(), writes.end(),
                             [&](const Write& write) { return write.stamp == sectors; });
  if (!allowed) {
    return fail(EIO, fmt::format("after the cut: the image has {} sectors, {} were flushed",
                                 sectors, settled_[capacity()]));
  }
  settled_[capacity()] = sectors;
  writes.clear();
  return {};
}

Result<void> SectorModel::adopt_size(uint64_t sectors) {
  std::vector<Stamp> candidates = open_ended(capacity());
  if (std::find(candidates.begin(), candidates.end(), sectors) == candidates.end()) {
    return fail(EIO, fmt::format("after a resize that failed the image has {} sectors", sectors));
  }
  begin_resize(sectors);
  end_resize(sectors);
  return {};
}

}  // namespace platter::powercut
