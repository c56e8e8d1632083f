// BitTree: many bits, marked from any thread without a lock, found again in time of what is set.
//
// The bits are words of 64. A summary has a bit for each word that is not zero, a summary of that
// one has a bit for each of its words, up to a single word: what is set is found without looking at
// what is not. A summary may say of a zero word that it is not (and is then looked into in vain),
// never the reverse: whoever clears a word's bit in the summary looks at the word again afterwards.
//
// set() and the questions may be called from any thread at any time; reset() beside them, but by
// one caller at a time; the rest by who has the tree alone. Memory is taken by what has been set:
// pages that were never written to cost nothing.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <vector>

#include "platter/error.h"

namespace platter::block {

class BitTree {
 public:
  static constexpr uint64_t kWordBits = 64;

  // `bits` of them, all zero. ENOMEM: there is no address space for so many.
  static Result<BitTree> create(uint64_t bits);

  uint64_t size() const { return bits_; }
  bool get(uint64_t bit) const;
  // Of [first, first + count), within size(). True if any of them was not set before.
  bool set(uint64_t first, uint64_t count);
  void reset(uint64_t first, uint64_t count);
  // The first one at `from` or behind; size() if there is none.
  uint64_t next_set(uint64_t from) const;
  uint64_t next_clear(uint64_t from) const;
  uint64_t count() const;

  // Eight bits a byte, the first one lowest. `first` is a multiple of kWordBits; bytes behind the
  // last bit are zero, those of load() are not looked at. load() adds to what is set.
  void store(uint64_t first, std::span<uint8_t> bytes) const;
  void load(uint64_t first, std::span<const uint8_t> bytes);

 private:
  struct Free {
    void operator()(uint64_t* words) const { std::free(words); }
  };
  struct Level {
    std::unique_ptr<uint64_t[], Free> words;
    uint64_t count = 0;
  };
  BitTree() = default;
  uint64_t load_word(size_t level, uint64_t index) const;
  bool set_in_word(uint64_t index, uint64_t mask);
  void summarise(size_t level, uint64_t index);
  void reset_in_word(size_t level, uint64_t index, uint64_t mask);

  uint64_t bits_ = 0;
  std::vector<Level> levels_;  // the bits themselves first
};

}  // namespace platter::block
