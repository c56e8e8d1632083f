#include "block/bit_tree.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>

#include "base/bytes.h"
#include "base/math.h"
#include "base/try.h"

namespace platter::block {
namespace {

constexpr uint64_t kAll = UINT64_MAX;

// The bits of word `index` that lie in [first, end).
uint64_t mask_within(uint64_t index, uint64_t first, uint64_t end) {
  const uint64_t begin = index * BitTree::kWordBits;
  uint64_t mask = kAll;
  if (first > begin) mask &= kAll << (first - begin);
  if (end - begin < BitTree::kWordBits) mask &= ~(kAll << (end - begin));
  return mask;
}

}  // namespace

Result<BitTree> BitTree::create(uint64_t bits) {
  BitTree tree;
  tree.bits_ = bits;
  uint64_t words = std::max<uint64_t>(base::divide_round_up(bits, kWordBits), 1);
  for (;;) {
    // Large areas are the system's zero pages until something is written to them.
    auto* memory = static_cast<uint64_t*>(std::calloc(words, sizeof(uint64_t)));
    if (memory == nullptr) return fail_errno(ENOMEM);
    tree.levels_.push_back({std::unique_ptr<uint64_t[], Free>(memory), words});
    if (words == 1) return tree;
    words = base::divide_round_up(words, kWordBits);
  }
}

uint64_t BitTree::load_word(size_t level, uint64_t index) const {
  return std::atomic_ref(levels_[level].words[index]).load(std::memory_order_seq_cst);
}

bool BitTree::get(uint64_t bit) const {
  return load_word(0, bit / kWordBits) >> (bit % kWordBits) & 1;
}

// Tells the levels above that word `index` of `level` is not zero.
void BitTree::summarise(size_t level, uint64_t index) {
  for (; level + 1 < levels_.size(); ++level) {
    const uint64_t mask = uint64_t{1} << (index % kWordBits);
    index /= kWordBits;
    std::atomic_ref word(levels_[level + 1].words[index]);
    if ((word.load(std::memory_order_seq_cst) & mask) != 0) return;
    if (word.fetch_or(mask, std::memory_order_seq_cst) != 0) return;
  }
}

bool BitTree::set_in_word(uint64_t index, uint64_t mask) {
  std::atomic_ref word(levels_[0].words[index]);
  // Most of what is written has been written before: no line is taken from another reactor then.
  if ((word.load(std::memory_order_seq_cst) & mask) == mask) return false;
  const uint64_t before = word.fetch_or(mask, std::memory_order_seq_cst);
  if (before == 0) summarise(0, index);
  return (before & mask) != mask;
}

bool BitTree::set(uint64_t first, uint64_t count) {
  const uint64_t end = first + count;
  bool changed = false;
  for (uint64_t at = first; at < end; at = base::align_down(at, kWordBits) + kWordBits) {
    const uint64_t index = at / kWordBits;
    changed = set_in_word(index, mask_within(index, first, end)) || changed;
  }
  return changed;
}

// Clears bits of a word and, where none is left, its bit in the summary. A bit that was set
// meanwhile is told to the summary again.
void BitTree::reset_in_word(size_t level, uint64_t index, uint64_t mask) {
  for (;; ++level) {
    std::atomic_ref word(levels_[level].words[index]);
    const uint64_t left = word.fetch_and(~mask, std::memory_order_seq_cst) & ~mask;
    if (level != 0) {
      const uint64_t below = index * kWordBits + static_cast<uint64_t>(std::countr_zero(mask));
      if (load_word(level - 1, below) != 0) {
        summarise(level - 1, below);
        return;
      }
    }
    if (left != 0 || level + 1 == levels_.size()) return;
    mask = uint64_t{1} << (index % kWordBits);
    index /= kWordBits;
  }
}

void BitTree::reset(uint64_t first, uint64_t count) {
  const uint64_t end = first + count;
  for (uint64_t at = next_set(first); at < end;) {
    const uint64_t index = at / kWordBits;
    reset_in_word(0, index, mask_within(index, first, end));
    at = next_set((index + 1) * kWordBits);
  }
}

uint64_t BitTree::next_set(uint64_t from) const {
  size_t level = 0;
  uint64_t at = from;  // a bit of that level
  for (;;) {
    const uint64_t index = at / kWordBits;
    if (index >= levels_[level].count) return bits_;
    const uint64_t word = load_word(level, index) & (kAll << (at % kWordBits));
    if (word == 0) {
      if (++level == levels_.size()) return bits_;
      at = index + 1;
      continue;
    }
    at = index * kWordBits + static_cast<uint64_t>(std::countr_zero(word));
    if (level == 0) return at;
    --level;
    at *= kWordBits;
  }
}

uint64_t BitTree::next_clear(uint64_t from) const {
  uint64_t at = from;
  while (at < bits_) {
    const uint64_t index = at / kWordBits;
    const uint64_t clear = ~load_word(0, index) & (kAll << (at % kWordBits));
    if (clear != 0) {
      return std::min(bits_, index * kWordBits + static_cast<uint64_t>(std::countr_zero(clear)));
    }
    at = (index + 1) * kWordBits;
  }
  return bits_;
}

uint64_t BitTree::count() const {
  uint64_t total = 0;
  for (uint64_t at = next_set(0); at < bits_;) {
    const uint64_t index = at / kWordBits;
    total += static_cast<uint64_t>(std::popcount(load_word(0, index)));
    at = next_set((index + 1) * kWordBits);
  }
  return total;
}

void BitTree::store(uint64_t first, std::span<uint8_t> bytes) const {
  std::ranges::fill(bytes, uint8_t{0});
  const uint64_t end = std::min(bits_, first + bytes.size() * 8);
  for (uint64_t at = next_set(first); at < end;) {
    const uint64_t index = at / kWordBits;
    const uint64_t word = base::from_little_endian(load_word(0, index));
    const uint64_t position = (index * kWordBits - first) / 8;
    std::memcpy(bytes.data() + position, &word,
                std::min<uint64_t>(sizeof word, bytes.size() - position));
    at = next_set((index + 1) * kWordBits);
  }
}

void BitTree::load(uint64_t first, std::span<const uint8_t> bytes) {
  for (uint64_t position = 0; position < bytes.size(); position += sizeof(uint64_t)) {
    const uint64_t at = first + position * 8;
    if (at >= bits_) return;
    uint64_t word = 0;
    std::memcpy(&word, bytes.data() + position,
                std::min<uint64_t>(sizeof word, bytes.size() - position));
    word = base::from_little_endian(word);
    const uint64_t index = at / kWordBits;
    word &= mask_within(index, at, bits_);
    if (word != 0) set_in_word(index, word);
  }
}

}  // namespace platter::block
