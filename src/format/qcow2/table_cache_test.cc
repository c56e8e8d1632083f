#include "format/qcow2/table_cache.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <random>
#include <thread>

#include "format/qcow2/layout.h"
#include "format/qcow2/refcounts.h"
#include "io/simulation.h"

namespace platter::format::qcow2 {
namespace {

class TableCacheTest : public testing::Test {
 protected:
  TableCache::Pin pin(TableCache& cache, uint64_t key) {
    auto pinned = world_.run(cache.acquire(key, nullptr, TableCache::kReadsZero));
    EXPECT_TRUE(pinned);
    return std::move(*pinned);
  }
  // The first word, or nothing if the slice is not cached.
  static std::optional<uint64_t> first_word(const TableCache& cache, uint64_t key) {
    uint64_t word = 0;
    if (!cache.read(key, [&](SliceWords words) { word = words.get(0); })) return std::nullopt;
    return word;
  }
  static size_t cached(const TableCache& cache, uint64_t keys) {
    size_t count = 0;
    for (uint64_t key = 0; key < keys; ++key) count += first_word(cache, key).has_value();
    return count;
  }
  io::Simulation world_{1};
};

TEST_F(TableCacheTest, KeepsNoMoreThanItsBudget) {
  TableCache cache({.slice_bytes = 512, .budget_bytes = 16 * 512, .slice_count = 1000});
  for (uint64_t key = 0; key < 1000; ++key) {
    auto slice = pin(cache, key);
    slice.words().set(0, key);
  }
  EXPECT_LE(cached(cache, 1000), 16u);
  EXPECT_GE(cached(cache, 1000), 8u);
  for (uint64_t key = 0; key < 1000; ++key) {
    if (auto word = first_word(cache, key)) EXPECT_EQ(*word, key);
  }
}

TEST_F(TableCacheTest, WhatIsUsedAgainOutlivesWhatIsNot) {
  TableCache cache({.slice_bytes = 512, .budget_bytes = 8 * 512, .slice_count = 1000});
  for (uint64_t key = 0; key < 8; ++key) pin(cache, key);
  for (uint64_t key = 8; key < 12; ++key) {
    pin(cache, key);  // the first one clears every mark
    EXPECT_TRUE(first_word(cache, key));
  }
  const auto survivor = [&] {
    for (uint64_t key = 0; key < 8; ++key) {
      if (first_word(cache, key)) return key;  // and marks it
    }
    return uint64_t{1000};
  }();
  ASSERT_LT(survivor, 8u);
  pin(cache, 12);
  EXPECT_TRUE(first_word(cache, survivor));
}

TEST_F(TableCacheTest, DirtySlicesThatAllHaveASlotPressForNothing) {
  TableCache cache({.slice_bytes = 512, .budget_bytes = 64 * 512, .slice_count = 32});
  for (uint64_t key = 0; key < 32; ++key) pin(cache, key).mark_dirty();
  EXPECT_EQ(cache.dirty_count(), 32u);
  EXPECT_FALSE(cache.under_pressure());
  for (uint64_t key = 32; key < 128; ++key) pin(cache, key).mark_dirty();
  EXPECT_TRUE(cache.under_pressure()) << "the table has grown";
}

TEST_F(TableCacheTest, DirtySlicesStayAndPressForAWriteBack) {
  TableCache cache({.slice_bytes = 512, .budget_bytes = 4 * 512, .slice_count = 1000});
  for (uint64_t key = 0; key < 20; ++key) {
    auto slice = pin(cache, key);
    slice.words().set(0, key + 100);
    slice.mark_dirty();
  }
  EXPECT_TRUE(cache.under_pressure());
  EXPECT_EQ(cache.dirty_count(), 20u);

  std::vector<uint8_t> staging;
  auto staged = cache.take_dirty(staging);
  ASSERT_EQ(staged.size(), 20u);
  for (const auto& slice : staged) {
    EXPECT_EQ(base::load_big<uint64_t>(staging, slice.position), slice.key + 100);
  }
  // Changed while it is being written: dirty again, whatever becomes of the write.
  {
    auto slice = pin(cache, 3);
    EXPECT_EQ(slice.words().get(0), 103u);
    slice.words().set(0, 7);
    slice.mark_dirty();
  }
  cache.end_write(staged, true);
  EXPECT_FALSE(cache.under_pressure() && cache.dirty_count() == 0);
  EXPECT_EQ(cache.dirty_count(), 1u);
  EXPECT_EQ(pin(cache, 3).words().get(0), 7u);
}

TEST_F(TableCacheTest, AFailedWriteLeavesItDirty) {
  TableCache cache({.slice_bytes = 512, .budget_bytes = 4 * 512, .slice_count = 1000});
  {
    auto slice = pin(cache, 5);
    slice.mark_dirty();
  }
  std::vector<uint8_t> staging;
  auto staged = cache.take_dirty(staging);
  EXPECT_EQ(cache.dirty_count(), 0u);
  cache.end_write(staged, false);
  EXPECT_EQ(cache.dirty_count(), 1u);
}

// Readers never see words of another slice, however fast slices come and go.
TEST_F(TableCacheTest, LockFreeReadersSeeOnlyTheirSlice) {
  TableCache cache({.slice_bytes = 512, .budget_bytes = 8 * 512, .slice_count = 1000});
  std::atomic<bool> stop = false;
  std::atomic<uint64_t> wrong = 0, seen = 0;
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i) {
    readers.emplace_back([&, i] {
      std::mt19937_64 random(static_cast<uint64_t>(i));
      while (!stop) {
        const uint64_t key = random() % 24;
        uint64_t first = 0, last = 0;
        if (!cache.read(key, [&](SliceWords words) {
              first = words.get(0);
              last = words.get(words.size() - 1);
            })) {
          continue;
        }
        ++seen;
        if ((first != 0 && first != key + 1) || (last != 0 && last != key + 1)) ++wrong;
      }
    });
  }
  std::mt19937_64 random(99);
  for (int i = 0; i < 20000 || seen == 0; ++i) {
    const uint64_t key = random() % 24;
    auto slice = pin(cache, key);
    slice.words().set(0, key + 1);
    slice.words().set(slice.words().size() - 1, key + 1);
  }
  stop = true;
  for (auto& reader : readers) reader.join();
  EXPECT_EQ(wrong, 0u);
}

TEST(RefcountWords, AgreeWithTheLayoutForEveryWidth) {
  std::mt19937_64 random(5);
  for (unsigned order = 0; order <= kMaxRefcountOrder; ++order) {
    uint64_t words[64] = {};
    std::vector<uint8_t> bytes(sizeof words);
    const SliceWords slice(words, 64);
    const uint64_t entries = (sizeof words * 8) >> order;
    const uint64_t max = order == 6 ? UINT64_MAX : (uint64_t{1} << (1u << order)) - 1;
    for (int i = 0; i < 2000; ++i) {
      const uint64_t index = random() % entries;
      const uint64_t value = random() & max;
      store_refcount(slice, index, order, value);
      store_refcount(bytes.data(), index, order, value);
      EXPECT_EQ(load_refcount(slice, index, order), value);
    }
    std::vector<uint8_t> stored(sizeof words);
    slice.copy_to(stored);
    EXPECT_EQ(stored, bytes) << "order " << order;
  }
}

uint64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  uint64_t size = 0, resident = 0;
  file >> size >> resident;
  return resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

TEST_F(TableCacheTest, MemoryOfWhatNobodyUsesGoesBack) {
  constexpr uint64_t kSlices = 16384;
  constexpr uint64_t kBytes = kSlices * 4096;
  TableCache cache({.budget_bytes = kBytes, .slice_count = kSlices});
  EXPECT_EQ(cache.held_bytes(), 0u);
  for (uint64_t key = 0; key < kSlices; ++key) pin(cache, key).words().set(0, key);
  EXPECT_EQ(cache.held_bytes(), kBytes);

  world_.run(cache.give_back_unused());        // all have been used since there is a cache
  EXPECT_EQ(cached(cache, kSlices), kSlices);  // and are now again
  world_.run(cache.give_back_unused());
  const uint64_t resident = resident_bytes();
  const auto read = first_word(cache, 3);
  ASSERT_TRUE(read.has_value());
  pin(cache, 7000);
  world_.run(cache.give_back_unused());
  EXPECT_LE(cache.held_bytes(), 2u * static_cast<uint64_t>(sysconf(_SC_PAGESIZE)));
  EXPECT_LT(resident_bytes() + kBytes / 4 * 3, resident);
  EXPECT_EQ(first_word(cache, 3), 3u);
  EXPECT_EQ(first_word(cache, 7000), 7000u);
  EXPECT_FALSE(first_word(cache, 12000));

  world_.run(cache.give_back_unused());
  world_.run(cache.give_back_unused());
  EXPECT_EQ(cache.held_bytes(), 0u);
  pin(cache, 12000).words().set(0, 1);
  EXPECT_EQ(first_word(cache, 12000), 1u);
  EXPECT_EQ(cache.held_bytes(), 4096u);
}

TEST_F(TableCacheTest, WhatIsDirtyPinnedOrBeingWrittenKeepsItsMemory) {
  constexpr uint64_t kSliceBytes = 65536;
  TableCache cache({.slice_bytes = kSliceBytes, .budget_bytes = 8 * kSliceBytes, .slice_count = 8});
  for (uint64_t key = 0; key < 8; ++key) pin(cache, key).words().set(0, key + 1);
  const auto pinned = pin(cache, 1);
  pin(cache, 2).mark_dirty();
  std::vector<uint8_t> staging;
  const auto staged = cache.take_dirty(staging);
  pin(cache, 3).mark_dirty();
  world_.run(cache.give_back_unused());
  world_.run(cache.give_back_unused());
  EXPECT_EQ(cache.held_bytes(), 3 * kSliceBytes);
  for (uint64_t key = 1; key <= 3; ++key) EXPECT_EQ(first_word(cache, key), key + 1);
  cache.end_write(staged, true);
  world_.run(cache.give_back_unused());
  world_.run(cache.give_back_unused());
  EXPECT_EQ(cache.held_bytes(), 2 * kSliceBytes);
  EXPECT_FALSE(first_word(cache, 2));
}

TEST_F(TableCacheTest, SlicesOfOnePageStayOrGoTogether) {
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const uint64_t slices = 2 * page / 512;
  TableCache cache({.slice_bytes = 512, .budget_bytes = 2 * page, .slice_count = slices});
  for (uint64_t key = 0; key < slices; ++key) pin(cache, key);
  world_.run(cache.give_back_unused());
  pin(cache, 0);
  world_.run(cache.give_back_unused());
  EXPECT_EQ(cache.held_bytes(), page);
  EXPECT_EQ(cached(cache, slices), slices / 2);
  EXPECT_TRUE(first_word(cache, 0));
}

// The words of an entry are equal whenever they are seen: also where their memory is taken away in
// between, and comes back as zeroes.
TEST_F(TableCacheTest, LockFreeReadersDoNotSeeMemoryGo) {
  TableCache cache({.budget_bytes = 8 * 4096, .slice_count = 8, .paired_words = true});
  std::atomic<bool> stop = false;
  std::atomic<uint64_t> seen = 0, halves = 0;
  std::vector<std::thread> readers;
  for (unsigned i = 0; i < 2; ++i) {
    readers.emplace_back([&, i] {
      for (uint64_t key = i; !stop; key = (key + 1) % 8) {
        uint64_t first = 0, second = 0;
        if (!cache.read(key, [&](SliceWords words) {
              first = words.get(0);
              second = words.get(words.size() - 1);
            })) {
          continue;
        }
        ++seen;
        if (first != second) ++halves;
      }
    });
  }
  for (uint64_t i = 1; i < 5000 || seen == 0; ++i) {
    for (uint64_t key = 0; key < 8; ++key) {
      pin(cache, key).change([i](SliceWords words) {
        words.set(0, i);
        words.set(words.size() - 1, i);
      });
    }
    world_.run(cache.give_back_unused());
    world_.run(cache.give_back_unused());
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(halves, 0u);
}

// Both words of an entry, or neither: whatever a reader is told to believe.
TEST_F(TableCacheTest, PairedWordsAreNeverSeenHalfChanged) {
  TableCache cache({.slice_bytes = 512, .budget_bytes = 8 * 512, .paired_words = true});
  auto slice = pin(cache, 3);
  std::atomic<bool> stop = false;
  std::atomic<uint64_t> seen = 0, halves = 0;
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i) {
    readers.emplace_back([&, i] {
      while (!stop) {
        uint64_t first = 0, second = 0;
        const auto look = [&](SliceWords words) {
          second = words.get(7);
          first = words.get(6);
        };
        if (i == 0) {
          if (!cache.read(3, look)) continue;
        } else {
          slice.look(look);
        }
        ++seen;
        if (first != second) ++halves;
      }
    });
  }
  for (uint64_t i = 1; i < 20000 || seen == 0; ++i) {
    slice.change([i](SliceWords words) {
      words.set(6, i);
      words.set(7, i);
    });
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(halves, 0u);
}

}  // namespace
}  // namespace platter::format::qcow2
