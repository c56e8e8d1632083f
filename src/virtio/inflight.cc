#include "virtio/inflight.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstring>

#include "base/assert.h"
#include "base/math.h"
#include "base/try.h"

namespace platter::virtio {
namespace {

constexpr uint64_t kRegionAlignment = 64;
constexpr uint16_t kVersion = 1;

// Both kinds begin alike.
constexpr uint64_t kFeatures = 0;
constexpr uint64_t kVersionAt = 8;
constexpr uint64_t kDescriptorCount = 10;

// QueueRegionSplit and DescStateSplit.
constexpr uint64_t kLastBatchHead = 12;
constexpr uint64_t kUsedIndex = 14;
constexpr uint64_t kSplitHeaderBytes = 16;
constexpr uint64_t kInFlight = 0;
constexpr uint64_t kSplitNext = 6;
constexpr uint64_t kCounter = 8;
constexpr uint64_t kSplitEntryBytes = 16;

// QueueRegionPacked and DescStatePacked; in flight and counter are where a split one has them.
constexpr uint64_t kFreeHead = 12;
constexpr uint64_t kOldFreeHead = 14;
constexpr uint64_t kPositions = 16;
constexpr uint64_t kPackedHeaderBytes = 32;
constexpr uint64_t kPackedNext = 2;
constexpr uint64_t kLast = 4;
constexpr uint64_t kLength = 6;
constexpr uint64_t kId = 16;
constexpr uint64_t kFlags = 18;
constexpr uint64_t kBytes = 20;
constexpr uint64_t kAddress = 24;
constexpr uint64_t kPackedEntryBytes = 32;

// The used index, the old one, the used wrap counter, the old one: one store, for a process that is
// killed between an index and its counter leaves neither position.
struct Positions {
  uint16_t now;
  uint16_t old;
  uint8_t wrap_now;
  uint8_t wrap_old;
  uint16_t padding;
};
static_assert(sizeof(Positions) == sizeof(uint64_t));

constexpr uint16_t kWrap = 0x8000;
constexpr uint16_t kAvailableFlag = 1 << 7;
constexpr uint16_t kUsedFlag = 1 << 15;

constexpr uint64_t header_bytes(bool packed) {
  return packed ? kPackedHeaderBytes : kSplitHeaderBytes;
}
constexpr uint64_t entry_bytes(bool packed) {
  return packed ? kPackedEntryBytes : kSplitEntryBytes;
}

uint64_t load_word(const uint8_t* at) {
  return __atomic_load_n(reinterpret_cast<const uint64_t*>(at), __ATOMIC_ACQUIRE);
}

std::unexpected<Error> rubbish(std::string_view what) {
  return fail(EINVAL, fmt::format("The region of requests in flight is not sound: {}", what));
}

}  // namespace

uint64_t inflight_bytes(bool packed, uint16_t entries) {
  return base::align_up(header_bytes(packed) + entries * entry_bytes(packed), kRegionAlignment);
}

void forget_inflight(uint8_t* bytes) {
  __atomic_store_n(reinterpret_cast<uint16_t*>(bytes + kVersionAt), uint16_t{0}, __ATOMIC_RELEASE);
}

// ---- What both kinds have

InflightRegion::InflightRegion(InflightMemory memory, uint64_t header_bytes, uint64_t entry_bytes,
                               uint32_t size)
    : memory_(std::move(memory)),
      header_bytes_(header_bytes),
      entry_bytes_(entry_bytes),
      size_(size),
      copy_(header_bytes + memory_.entries * entry_bytes) {
  PLATTER_ASSERT(memory_.bytes.size() >= copy_.size() && memory_.entries >= size);
  PLATTER_ASSERT(
      base::is_aligned(reinterpret_cast<uintptr_t>(memory_.bytes.data()), sizeof(uint64_t)));
  for (size_t at = 0; at < copy_.size(); at += sizeof(uint64_t)) {
    const uint64_t word = load_word(memory_.bytes.data() + at);
    std::memcpy(copy_.data() + at, &word, sizeof word);
  }
}

template <typename T>
T InflightRegion::copied(uint64_t offset) const {
  PLATTER_ASSERT(offset + sizeof(T) <= copy_.size());
  T value;
  std::memcpy(&value, copy_.data() + offset, sizeof value);
  return value;
}

// The fence is for the compiler: a process that is killed has done its stores in their order.
template <typename T>
void InflightRegion::store(uint64_t offset, T value) {
  __atomic_store_n(reinterpret_cast<T*>(memory_.bytes.data() + offset), value, __ATOMIC_RELEASE);
  std::atomic_signal_fence(std::memory_order_seq_cst);
}

bool InflightRegion::in_use() const { return copied<uint16_t>(kVersionAt) != 0; }

Result<void> InflightRegion::check_header() const {
  const auto version = copied<uint16_t>(kVersionAt);
  if (version != kVersion) return rubbish(fmt::format("its version is {}", version));
  if (const auto features = copied<uint64_t>(kFeatures); features != 0)
    return rubbish(fmt::format("it has features {:#x}", features));
  if (const auto count = copied<uint16_t>(kDescriptorCount); count != memory_.entries)
    return rubbish(fmt::format("it says {} descriptors and has {}", count, memory_.entries));
  return {};
}

// Who is killed before the version is there leaves a region that is not in use.
void InflightRegion::begin_header() {
  store<uint64_t>(kFeatures, 0);
  store<uint16_t>(kDescriptorCount, memory_.entries);
  store<uint16_t>(kVersionAt, kVersion);
}

Result<bool> InflightRegion::copied_flag(uint64_t offset) const {
  const auto flag = copied<uint8_t>(offset);
  if (flag > 1) return rubbish(fmt::format("a descriptor is in flight {} times", flag));
  return flag == 1;
}

// ---- Split rings

SplitInflight::SplitInflight(InflightMemory memory, uint32_t size)
    : InflightRegion(std::move(memory), kSplitHeaderBytes, kSplitEntryBytes, size) {
  batch_.reserve(size);
}

void SplitInflight::begin(uint16_t used) {
  for (uint32_t i = 0; i < memory_.entries; ++i) store<uint8_t>(entry(i) + kInFlight, 0);
  store<uint16_t>(kLastBatchHead, 0);
  store<uint16_t>(kUsedIndex, used);
  begin_header();
  drop_copy();
}

Result<std::vector<uint16_t>> SplitInflight::recover(uint16_t used) {
  PLATTER_TRY(check_header());
  std::vector<uint16_t> heads;
  for (uint32_t i = 0; i < memory_.entries; ++i) {
    PLATTER_ASSIGN(const bool in_flight, copied_flag(entry(i) + kInFlight));
    if (in_flight && i >= size_)
      return rubbish(fmt::format("descriptor {} of {} is in flight", i, size_));
    if (in_flight) heads.push_back(static_cast<uint16_t>(i));
  }
  // The last batch was shown: what is left in flight of it is not. Where nothing is, the index may
  // have begun anew with the ring.
  last_batch_head_ = copied<uint16_t>(kLastBatchHead);
  const auto batch = static_cast<uint16_t>(used - copied<uint16_t>(kUsedIndex));
  if (!heads.empty() && batch != 0) {
    if (batch > size_) return rubbish(fmt::format("its last batch has {} descriptors", batch));
    std::vector<bool> seen(size_);
    uint16_t at = last_batch_head_;
    for (uint16_t i = 0; i < batch; ++i) {
      if (at >= size_ || seen[at]) return rubbish("the list of its last batch is broken");
      seen[at] = true;
      at = copied<uint16_t>(entry(at) + kSplitNext);
    }
    std::erase_if(heads, [&](uint16_t head) {
      if (seen[head]) store<uint8_t>(entry(head) + kInFlight, 0);
      return seen[head];
    });
  }
  store<uint16_t>(kUsedIndex, used);
  const auto count_of = [&](uint16_t head) { return copied<uint64_t>(entry(head) + kCounter); };
  std::ranges::sort(heads, {}, count_of);
  if (!heads.empty()) counter_ = count_of(heads.back()) + 1;
  drop_copy();
  return heads;
}

void SplitInflight::taken(uint16_t head) {
  store<uint64_t>(entry(head) + kCounter, counter_++);
  store<uint8_t>(entry(head) + kInFlight, 1);
}

void SplitInflight::returned(uint16_t head) {
  store<uint16_t>(entry(head) + kSplitNext, last_batch_head_);
  store<uint16_t>(kLastBatchHead, head);
  last_batch_head_ = head;
  batch_.push_back(head);
}

void SplitInflight::shown(uint16_t used) {
  std::atomic_signal_fence(std::memory_order_seq_cst);
  for (const uint16_t head : batch_) store<uint8_t>(entry(head) + kInFlight, 0);
  batch_.clear();
  store<uint16_t>(kUsedIndex, used);
}

// ---- Packed rings

PackedInflight::PackedInflight(InflightMemory memory, uint32_t size)
    : InflightRegion(std::move(memory), kPackedHeaderBytes, kPackedEntryBytes, size),
      next_(memory_.entries),
      last_(memory_.entries),
      length_(memory_.entries) {
  noted_.reserve(size);
  batch_.reserve(memory_.entries);
}

PackedInflight::UsedPositions PackedInflight::copied_positions() const {
  const auto raw = copied<Positions>(kPositions);
  const auto bits = [](uint16_t index, uint8_t wrap) {
    return static_cast<uint16_t>((index & ~kWrap) | (wrap != 0 ? kWrap : 0));
  };
  return {.now = bits(raw.now, raw.wrap_now), .old = bits(raw.old, raw.wrap_old)};
}

void PackedInflight::store_positions(UsedPositions positions) {
  const auto index = [](uint16_t bits) { return static_cast<uint16_t>(bits & ~kWrap); };
  const auto wrap = [](uint16_t bits) { return static_cast<uint8_t>((bits & kWrap) != 0); };
  const Positions raw = {.now = index(positions.now),
                         .old = index(positions.old),
                         .wrap_now = wrap(positions.now),
                         .wrap_old = wrap(positions.old),
                         .padding = 0};
  store(kPositions, std::bit_cast<uint64_t>(raw));
}

// The list ends with an index that is none.
void PackedInflight::begin(uint16_t used) {
  for (uint32_t i = 0; i < memory_.entries; ++i) {
    next_[i] = static_cast<uint16_t>(i + 1);
    store(entry(i) + kPackedNext, next_[i]);
    store<uint8_t>(entry(i) + kInFlight, 0);
  }
  store<uint16_t>(kFreeHead, 0);
  store<uint16_t>(kOldFreeHead, 0);
  store_positions({.now = used, .old = used});
  begin_header();
  free_ = memory_.entries;
  used_ = used;
  drop_copy();
}

// How long it is.
Result<uint32_t> PackedInflight::read_free_list(uint16_t head, std::vector<bool>& seen) {
  uint32_t length = 0;
  for (uint16_t at = head; at < memory_.entries; at = next_[at]) {
    if (seen[at]) return rubbish("the list of its free entries is a loop");
    seen[at] = true;
    ++length;
  }
  return length;
}

Result<PackedInflight::Request> PackedInflight::read_request(uint16_t head,
                                                             std::vector<bool>& seen) {
  const auto length = copied<uint16_t>(entry(head) + kLength);
  if (length == 0 || length > size_)
    return rubbish(fmt::format("a request of {} descriptors is in flight", length));
  Request request = {.entry = head, .descriptors = {}};
  uint16_t at = head;
  for (uint16_t i = 0; i < length; ++i) {
    if (i != 0) at = next_[at];
    if (at >= memory_.entries || seen[at]) return rubbish("the list of a request is broken");
    seen[at] = true;
    const auto flags = copied<uint16_t>(entry(at) + kFlags);
    if (((flags & kDescriptorNext) != 0) != (i + 1 < length))
      return rubbish("a request ends before its last descriptor, or after it");
    request.descriptors.push_back({.address = copied<uint64_t>(entry(at) + kAddress),
                                   .bytes = copied<uint32_t>(entry(at) + kBytes),
                                   .flags = flags,
                                   .link = copied<uint16_t>(entry(at) + kId)});
  }
  if (copied<uint16_t>(entry(head) + kLast) != at) return rubbish("a request ends elsewhere");
  last_[head] = at;
  length_[head] = length;
  return request;
}

Result<PackedInflight::Recovered> PackedInflight::recover(
    const std::function<uint16_t(uint16_t index)>& flags_at) {
  PLATTER_TRY(check_header());
  for (uint32_t i = 0; i < memory_.entries; ++i)
    next_[i] = copied<uint16_t>(entry(i) + kPackedNext);
  UsedPositions positions = copied_positions();
  const auto index_of = [](uint16_t bits) { return static_cast<uint16_t>(bits & ~kWrap); };
  if (index_of(positions.now) >= size_ || index_of(positions.old) >= size_)
    return rubbish("its used index lies outside of the ring");

  free_head_ = copied<uint16_t>(kOldFreeHead);
  if (positions.now != positions.old) {
    const bool wrap = (positions.old & kWrap) != 0;
    const uint16_t available = wrap ? kAvailableFlag : kUsedFlag;
    const uint16_t flags = flags_at(index_of(positions.old));
    // The driver has seen the batch: it counts. Otherwise it never was.
    if ((flags & (kAvailableFlag | kUsedFlag)) != available) {
      free_head_ = copied<uint16_t>(kFreeHead);
      positions.old = positions.now;
    }
  }
  std::vector<bool> seen(memory_.entries);
  PLATTER_ASSIGN(free_, read_free_list(free_head_, seen));
  const std::vector<bool> is_free = seen;
  Recovered recovered = {.used = positions.old, .requests = {}};
  uint32_t out = 0;
  for (uint32_t i = 0; i < memory_.entries; ++i) {
    PLATTER_ASSIGN(const bool in_flight, copied_flag(entry(i) + kInFlight));
    if (!in_flight || is_free[i]) continue;
    PLATTER_ASSIGN(auto request, read_request(static_cast<uint16_t>(i), seen));
    out += static_cast<uint32_t>(request.descriptors.size());
    recovered.requests.push_back(std::move(request));
  }
  if (out > size_ || out + free_ != memory_.entries)
    return rubbish(
        fmt::format("{} entries are in flight and {} free of {}", out, free_, memory_.entries));

  // First the head: the old position says that the batch is still to be judged.
  store(kOldFreeHead, free_head_);
  store_positions({.now = positions.now, .old = positions.old});
  store(kFreeHead, free_head_);
  store_positions({.now = positions.old, .old = positions.old});
  for (uint32_t i = 0; i < memory_.entries; ++i) {
    if (is_free[i]) store<uint8_t>(entry(i) + kInFlight, 0);
  }
  const auto count_of = [&](const Request& each) {
    return copied<uint64_t>(entry(each.entry) + kCounter);
  };
  std::ranges::sort(recovered.requests, {}, count_of);
  if (!recovered.requests.empty()) counter_ = count_of(recovered.requests.back()) + 1;
  used_ = recovered.used;
  drop_copy();
  return recovered;
}

Result<uint16_t> PackedInflight::taken() {
  if (noted_.size() > free_)
    return fail(EINVAL, "More requests are in flight than a virtqueue has entries");
  const uint16_t head = free_head_;
  store<uint16_t>(entry(head) + kLength, 0);
  store<uint64_t>(entry(head) + kCounter, counter_++);
  store<uint8_t>(entry(head) + kInFlight, 1);
  uint16_t length = 0;
  for (const Descriptor& descriptor : noted_) {
    const uint16_t at = free_head_;
    if (++length == noted_.size()) {
      store(entry(head) + kLast, at);
      last_[head] = at;
    }
    store(entry(head) + kLength, length);
    store(entry(at) + kAddress, descriptor.address);
    store(entry(at) + kBytes, descriptor.bytes);
    store(entry(at) + kFlags, descriptor.flags);
    store(entry(at) + kId, descriptor.link);
    free_head_ = next_[at];
    store(kFreeHead, free_head_);
  }
  store(kOldFreeHead, free_head_);
  length_[head] = length;
  free_ -= length;
  noted_.clear();
  return head;
}

// Only now do the entries become free: what is taken until the batch is shown must not lie in them.
void PackedInflight::before_show(uint16_t used) {
  for (const uint16_t head : batch_) {
    next_[last_[head]] = free_head_;
    store(entry(last_[head]) + kPackedNext, free_head_);
    free_head_ = head;
    store(kFreeHead, free_head_);
  }
  store_positions({.now = used, .old = used_});
  used_ = used;
}

void PackedInflight::after_show() {
  std::atomic_signal_fence(std::memory_order_seq_cst);
  for (const uint16_t head : batch_) {
    store<uint8_t>(entry(head) + kInFlight, 0);
    free_ += length_[head];
  }
  batch_.clear();
  store(kOldFreeHead, free_head_);
  store_positions({.now = used_, .old = used_});
}

}  // namespace platter::virtio
