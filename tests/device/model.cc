#include "device/model.h"

#include <algorithm>

#include "base/bytes.h"

namespace platter::device_test {
namespace {

constexpr uint64_t kSector = 512;
constexpr size_t kRangeBytes = 16;
constexpr size_t kIdBytes = 20;
constexpr uint32_t kBarrier = UINT32_C(1) << 31;

struct Range {
  uint64_t sector;
  uint64_t sectors;
  uint32_t flags;
};
Range range_of(const Asked& asked) {
  return {.sector = base::load_little<uint64_t>(asked.data, 0),
          .sectors = base::load_little<uint32_t>(asked.data, 8),
          .flags = base::load_little<uint32_t>(asked.data, 12)};
}

}  // namespace

bool Model::is_on_disk(uint64_t sector, uint64_t bytes) const {
  const uint64_t sectors = disk_.size() / kSector;
  return sector <= sectors && bytes <= (sectors - sector) * kSector &&
         sector * kSector % properties_.logical_block_bytes == 0 &&
         bytes % properties_.logical_block_bytes == 0;
}

// Whether the disk does not carry it out; one that the device stops at is carried out later.
bool Model::fails(const Asked& asked) {
  const auto [first, count] = touches(asked);
  const auto hits = [&](const Fault& fault) {
    return fault.type == (asked.type & ~kBarrier) && fault.sector >= first &&
           fault.sector - first < count;
  };
  if (on_error_ == virtio::blk::OnError::kStop) {
    std::erase_if(faults_, hits);
    return false;
  }
  const auto found = std::ranges::find_if(faults_, hits);
  if (found == faults_.end()) return false;
  faults_.erase(found);
  return true;
}

std::optional<Answer> Model::carry_out(const Asked& asked) {
  const auto [first, count] = touches(asked);
  const auto sectors = disk_.size() / kSector;
  const auto begin = disk_.begin() + static_cast<ptrdiff_t>(std::min(first, sectors) * kSector);
  const uint64_t left = sectors - std::min(first, sectors);
  const auto end = begin + static_cast<ptrdiff_t>(std::min(count, left) * kSector);
  const std::vector<std::optional<uint8_t>> before(begin, end);
  auto answer = carry_out_well(asked);
  if (!answer || answer->status != kOk || !fails(asked)) return answer;
  std::ranges::copy(before, begin);
  if (on_error_ == virtio::blk::OnError::kReport) answer->status = kIoError;
  std::ranges::fill(answer->data, std::nullopt);
  return answer;
}

void Model::forget(const Asked& asked) {
  const auto [first, count] = touches(asked);
  const uint64_t sectors = disk_.size() / kSector;
  if ((asked.type & ~kBarrier) == kRead || first >= sectors) return;
  std::fill_n(disk_.begin() + static_cast<ptrdiff_t>(first * kSector),
              std::min(count, sectors - first) * kSector, std::nullopt);
}

std::optional<Answer> Model::carry_out_well(const Asked& asked) {
  switch (asked.type & ~kBarrier) {
    case kRead: return read(asked);
    case kWrite: return write(asked);
    case kFlush:
    case kFlush + 1: return Answer{.status = kOk, .data = {}};
    case kGetId:
    case kGetId + 1: return identify(asked);
    case kDiscard: return clear(asked, false);
    case kWriteZeroes: return clear(asked, true);
    default: return Answer{.status = kUnsupported, .data = {}};
  }
}

std::pair<uint64_t, uint64_t> Model::touches(const Asked& asked) const {
  switch (asked.type & ~kBarrier) {
    case kRead: return {asked.sector, (asked.room + kSector - 1) / kSector};
    case kWrite: return {asked.sector, (asked.data.size() + kSector - 1) / kSector};
    case kDiscard:
    case kWriteZeroes: {
      if (asked.data.size() < kRangeBytes) return {0, 0};
      const Range range = range_of(asked);
      return {range.sector, range.sectors};
    }
    default: return {0, 0};
  }
}

Answer Model::read(const Asked& asked) const {
  if (!is_on_disk(asked.sector, asked.room)) return {.status = kIoError, .data = {}};
  const auto first = disk_.begin() + static_cast<ptrdiff_t>(asked.sector * kSector);
  return {.status = kOk, .data = {first, first + static_cast<ptrdiff_t>(asked.room)}};
}

Answer Model::write(const Asked& asked) {
  if (properties_.read_only || !is_on_disk(asked.sector, asked.data.size()))
    return {.status = kIoError, .data = {}};
  std::ranges::copy(asked.data, disk_.begin() + static_cast<ptrdiff_t>(asked.sector * kSector));
  return {.status = kOk, .data = {}};
}

Answer Model::identify(const Asked& asked) const {
  Answer answer = {.status = kOk, .data = {}};
  for (size_t i = 0; i < std::min(kIdBytes, asked.room); ++i) {
    const bool in_serial = i < properties_.serial.size();
    answer.data.emplace_back(in_serial ? static_cast<uint8_t>(properties_.serial[i]) : uint8_t{0});
  }
  return answer;
}

std::optional<Answer> Model::clear(const Asked& asked, bool zeroes) {
  const bool offered = zeroes ? properties_.write_zeroes : properties_.discard;
  if (!offered || asked.data.size() > kRangeBytes) return Answer{kUnsupported, {}};
  if (asked.data.size() < kRangeBytes) return std::nullopt;
  const Range range = range_of(asked);
  const bool unmap = range.flags == 1;
  if (range.flags != 0 && !(unmap && zeroes)) return Answer{kUnsupported, {}};
  const uint64_t most =
      zeroes ? properties_.max_write_zeroes_sectors : properties_.max_discard_sectors;
  if (properties_.read_only || range.sectors > most ||
      !is_on_disk(range.sector, range.sectors * kSector))
    return Answer{kIoError, {}};
  for (uint64_t i = range.sector * kSector; i < (range.sector + range.sectors) * kSector; ++i)
    disk_[i] = zeroes ? std::optional<uint8_t>(0) : std::nullopt;
  return Answer{kOk, {}};
}

}  // namespace platter::device_test
