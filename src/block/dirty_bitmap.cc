#include "block/dirty_bitmap.h"

#include <algorithm>
#include <bit>
#include <cerrno>

#include "base/assert.h"
#include "base/math.h"
#include "base/try.h"
#include "fmt/format.h"

namespace platter::block {
namespace {

constexpr uint64_t kMinDefaultGranularity = 4096;
constexpr uint64_t kMaxDefaultGranularity = 65536;

Result<uint64_t> count_bits(std::string_view name, uint64_t size, unsigned shift) {
  const uint64_t bits = base::divide_round_up(size, uint64_t{1} << shift);
  if (bits <= DirtyBitmap::kMaxBits) return bits;
  return fail(EFBIG, fmt::format("Bitmap '{}' would have {} bits, more than {}; a larger "
                                 "granularity needs fewer",
                                 name, bits, DirtyBitmap::kMaxBits));
}

Result<BitTree> make_bits(std::string_view name, uint64_t size, unsigned shift) {
  PLATTER_ASSIGN(const uint64_t bits, count_bits(name, size, shift));
  auto tree = BitTree::create(bits);
  if (!tree) tree.error().add_context(fmt::format("Bitmap '{}'", name));
  return tree;
}

void merge_tree(BitTree& target, const BitTree& source) {
  for (uint64_t at = source.next_set(0); at < source.size();) {
    const uint64_t end = source.next_clear(at);
    target.set(at, end - at);
    at = source.next_set(end);
  }
}

}  // namespace

DirtyBitmap::DirtyBitmap(std::string name, uint64_t size, unsigned shift, BitTree bits)
    : name_(std::move(name)), size_(size), shift_(shift), bits_(std::move(bits)), marked_(&bits_) {}

Result<std::shared_ptr<DirtyBitmap>> DirtyBitmap::create(std::string name, uint64_t size,
                                                         uint64_t granularity) {
  if (!base::is_power_of_two(granularity) || granularity < kMinGranularity) {
    return fail(EINVAL,
                fmt::format("Granularity must be power of 2 and at least {}", kMinGranularity));
  }
  if (granularity > kMaxGranularity)
    return fail(EINVAL, fmt::format("Granularity must be at most {}", kMaxGranularity));
  const auto shift = static_cast<unsigned>(std::countr_zero(granularity));
  PLATTER_ASSIGN(BitTree bits, make_bits(name, size, shift));
  return std::shared_ptr<DirtyBitmap>(
      new DirtyBitmap(std::move(name), size, shift, std::move(bits)));
}

uint64_t DirtyBitmap::default_granularity(uint64_t cluster_size) {
  if (cluster_size == 0) return kMaxDefaultGranularity;
  return std::clamp(cluster_size, kMinDefaultGranularity, kMaxDefaultGranularity);
}

void DirtyBitmap::mark_bits(uint64_t offset, uint64_t length) {
  const uint64_t first = offset >> shift_;
  const uint64_t last = (offset + length - 1) >> shift_;
  if (marked_->set(first, last - first + 1) && !changed()) set_changed(true);
}

void DirtyBitmap::clear(uint64_t offset, uint64_t length) {
  if (offset >= size_) return;
  const uint64_t end = offset + std::min(length, size_ - offset);
  const uint64_t first = base::divide_round_up(offset, granularity());
  const uint64_t behind = end == size_ ? bits_.size() : end >> shift_;
  if (first >= behind) return;
  bits_.reset(first, behind - first);
  set_changed(true);
}

std::optional<DirtyBitmap::Range> DirtyBitmap::next_dirty(uint64_t offset) const {
  if (offset >= size_) return std::nullopt;
  const uint64_t first = bits_.next_set(offset >> shift_);
  if (first >= bits_.size()) return std::nullopt;
  const uint64_t begin = std::max(offset, first << shift_);
  const uint64_t end = std::min(size_, bits_.next_clear(first) << shift_);
  return Range{begin, end - begin};
}

void DirtyBitmap::clear_all() {
  bits_.reset(0, bits_.size());
  set_changed(true);
}

Result<void> DirtyBitmap::merge(const DirtyBitmap& source) {
  if (source.size_ != size_) {
    return fail(EINVAL, fmt::format("Bitmaps are of different sizes (destination size is {}, "
                                    "source size is {}) and can't be merged",
                                    size_, source.size_));
  }
  for (auto range = source.next_dirty(0); range;
       range = source.next_dirty(range->offset + range->length)) {
    const uint64_t first = range->offset >> shift_;
    const uint64_t last = (range->offset + range->length - 1) >> shift_;
    if (bits_.set(first, last - first + 1)) set_changed(true);
  }
  return {};
}

Result<void> DirtyBitmap::resize(uint64_t size) {
  PLATTER_ASSERT(!frozen());
  PLATTER_ASSIGN(BitTree bits, make_bits(name_, size, shift_));
  for (uint64_t at = bits_.next_set(0); at < std::min(bits_.size(), bits.size());) {
    const uint64_t end = std::min(bits_.next_clear(at), bits.size());
    bits.set(at, end - at);
    at = bits_.next_set(end);
  }
  bits_ = std::move(bits);
  size_ = size;
  set_changed(true);
  return {};
}

Result<void> DirtyBitmap::check_size(uint64_t size) const {
  PLATTER_TRY(count_bits(name_, size, shift_));
  return {};
}

Result<void> DirtyBitmap::freeze() {
  PLATTER_ASSERT(!frozen());
  PLATTER_ASSIGN(BitTree bits, make_bits(name_, size_, shift_));
  successor_ = std::make_unique<BitTree>(std::move(bits));
  marked_ = successor_.get();
  return {};
}

void DirtyBitmap::abdicate() {
  PLATTER_ASSERT(frozen());
  bits_ = std::move(*successor_);
  successor_.reset();
  marked_ = &bits_;
  set_changed(true);
}

void DirtyBitmap::reclaim() {
  PLATTER_ASSERT(frozen());
  merge_tree(bits_, *successor_);
  successor_.reset();
  marked_ = &bits_;
}

}  // namespace platter::block
