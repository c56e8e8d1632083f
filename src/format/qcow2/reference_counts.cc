#include "format/qcow2/reference_counts.h"

#include <cerrno>
#include <cstring>

#include "base/bytes.h"
#include "base/math.h"
#include "base/try.h"

namespace platter::format::qcow2 {

namespace {

uint64_t load(const uint8_t* data, uint8_t width, uint64_t index) {
  uint64_t value = 0;
  std::memcpy(&value, data + index * width, width);
  return base::from_little_endian(value);
}

void store(uint8_t* data, uint8_t width, uint64_t index, uint64_t value) {
  value = base::from_little_endian(value);
  std::memcpy(data + index * width, &value, width);
}

uint8_t width_for(uint64_t value) {
  if (value <= UINT8_MAX) return 1;
  if (value <= UINT16_MAX) return 2;
  return value <= UINT32_MAX ? 4 : 8;
}

}  // namespace

ReferenceCounts::ReferenceCounts(uint64_t clusters, uint64_t budget)
    : clusters_(clusters),
      budget_(budget),
      branches_(base::divide_round_up(clusters, kChunkClusters * kFanout * kFanout)) {}

Result<ReferenceCounts> ReferenceCounts::create(uint64_t clusters, uint64_t max_memory_bytes) {
  // Users go through all clusters of a file: what could not be told apart within the budget is
  // refused, though nothing of it may be there.
  const uint64_t chunks = base::divide_round_up(clusters, kChunkClusters);
  const auto bytes = base::checked_mul<uint64_t>(chunks, sizeof(Chunk));
  if (!bytes || *bytes > max_memory_bytes) {
    return fail(ENOMEM, "The file has too many clusters for the memory that a check may use");
  }
  const uint64_t branches = base::divide_round_up(clusters, kChunkClusters * kFanout * kFanout);
  return ReferenceCounts(clusters, max_memory_bytes - branches * sizeof(branches_[0]));
}

uint64_t ReferenceCounts::get_wide(const Chunk& chunk, uint64_t index) {
  return chunk.width == 0 ? 0 : load(chunk.data.get(), chunk.width, index);
}

bool ReferenceCounts::widen(Chunk& chunk, uint8_t width) {
  const uint64_t more = kChunkClusters * (width - chunk.width);
  if (more > budget_) return false;
  budget_ -= more;
  auto data = std::make_unique<uint8_t[]>(kChunkClusters * width);
  for (uint64_t i = 0; chunk.width != 0 && i < kChunkClusters; ++i) {
    store(data.get(), width, i, load(chunk.data.get(), chunk.width, i));
  }
  chunk.data = std::move(data);
  chunk.width = width;
  return true;
}

template <typename Part>
bool ReferenceCounts::grow(std::unique_ptr<Part>& part) {
  if (part != nullptr) return true;
  if (sizeof(Part) > budget_) return false;
  budget_ -= sizeof(Part);
  part = std::make_unique<Part>();
  return true;
}

uint64_t ReferenceCounts::absent_from(uint64_t chunk) const {
  const Branch* branch = branches_[chunk / (kFanout * kFanout)].get();
  if (branch == nullptr) return kFanout * kFanout - chunk % (kFanout * kFanout);
  return (*branch)[chunk / kFanout % kFanout] == nullptr ? kFanout - chunk % kFanout : 0;
}

bool ReferenceCounts::set_wide(uint64_t cluster, uint64_t value) {
  const uint64_t number = cluster >> kChunkBits;
  const uint64_t index = cluster & (kChunkClusters - 1);
  auto& branch = branches_[number / (kFanout * kFanout)];
  if (value == 0 && find(number) == nullptr) return true;
  if (!grow(branch)) return false;
  auto& group = (*branch)[number / kFanout % kFanout];
  if (!grow(group)) return false;
  Chunk& chunk = (*group)[number % kFanout];
  if (chunk.width == 0 && value == 0) return true;
  const uint8_t width = width_for(value);
  if (width > chunk.width && !widen(chunk, width)) return false;
  store(chunk.data.get(), chunk.width, index, value);
  return true;
}

uint8_t* ReferenceCounts::bytes_of(uint64_t first, uint64_t clusters) const {
  if (first >= clusters_ || clusters > clusters_ - first || clusters > left_in_chunk(first))
    return nullptr;
  const Chunk* chunk = find(first >> kChunkBits);
  if (chunk == nullptr || chunk->width != 1) return nullptr;
  return chunk->data.get() + (first & (kChunkClusters - 1));
}

bool ReferenceCounts::shift(uint64_t first, uint64_t clusters, uint8_t low, uint8_t high,
                            int8_t by) {
  uint8_t* bytes = bytes_of(first, clusters);
  if (bytes == nullptr) return false;
  uint8_t smallest = UINT8_MAX, largest = 0;
  for (uint64_t i = 0; i < clusters; ++i) {
    smallest = std::min(smallest, bytes[i]);
    largest = std::max(largest, bytes[i]);
  }
  if (smallest < low || largest > high) return false;
  for (uint64_t i = 0; i < clusters; ++i) bytes[i] = static_cast<uint8_t>(bytes[i] + by);
  return true;
}

std::optional<uint8_t> ReferenceCounts::common(uint64_t first, uint64_t clusters) const {
  const uint8_t* bytes = bytes_of(first, clusters);
  if (bytes == nullptr) return std::nullopt;
  uint8_t differing = 0;
  for (uint64_t i = 0; i < clusters; ++i) differing |= bytes[i] ^ bytes[0];
  return differing == 0 ? std::optional(bytes[0]) : std::nullopt;
}

bool ReferenceCounts::is_zero(const Chunk& chunk) {
  return chunk.width == 0 || base::is_zero({chunk.data.get(), kChunkClusters * chunk.width});
}

bool ReferenceCounts::same(const Chunk* a, const Chunk* b) {
  if (a == nullptr || a->width == 0) return b == nullptr || is_zero(*b);
  if (b == nullptr || b->width == 0) return is_zero(*a);
  return a->width == b->width &&
         std::memcmp(a->data.get(), b->data.get(), kChunkClusters * a->width) == 0;
}

int64_t ReferenceCounts::last_used() const {
  for (uint64_t end = base::divide_round_up(clusters_, kChunkClusters); end > 0;) {
    const uint64_t chunk = end - 1;
    if (absent_from(chunk) != 0) {
      const bool whole_branch = branches_[chunk / (kFanout * kFanout)] == nullptr;
      end = base::align_down(chunk, whole_branch ? kFanout * kFanout : kFanout);
      continue;
    }
    end = chunk;
    const Chunk* here = find(chunk);
    if (is_zero(*here)) continue;
    uint64_t index = kChunkClusters;
    while (get_wide(*here, --index) == 0) {
    }
    return static_cast<int64_t>((chunk << kChunkBits) + index);
  }
  return -1;
}

}  // namespace platter::format::qcow2
