// Dirty bitmaps against a plain model, from several threads, and where a node records in them.

#include "block/dirty_bitmap.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <thread>

#include "block/graph.h"
#include "block/registry.h"
#include "io/reactor_group.h"
#include "io/when_all.h"

namespace platter::block {
namespace {

std::shared_ptr<DirtyBitmap> make(uint64_t size, uint64_t granularity) {
  auto made = DirtyBitmap::create("b", size, granularity);
  EXPECT_TRUE(made) << made.error().message();
  return std::move(*made);
}

// The bits that a bitmap says are set, found by asking for runs.
std::vector<bool> runs_of(const DirtyBitmap& bitmap) {
  std::vector<bool> bits(bitmap.bits());
  for (auto range = bitmap.next_dirty(0); range;
       range = bitmap.next_dirty(range->offset + range->length)) {
    for (uint64_t at = range->offset; at < range->offset + range->length;
         at += bitmap.granularity()) {
      bits[at / bitmap.granularity()] = true;
    }
  }
  return bits;
}

std::vector<bool> bits_of(const DirtyBitmap& bitmap) {
  std::vector<bool> bits(bitmap.bits());
  for (uint64_t i = 0; i < bits.size(); ++i) bits[i] = bitmap.is_dirty(i * bitmap.granularity());
  return bits;
}

class Model {
 public:
  Model(uint64_t size, uint64_t granularity)
      : size_(size), granularity_(granularity), bits((size + granularity - 1) / granularity) {}
  void mark(uint64_t offset, uint64_t length) {
    for (uint64_t i = 0; i < bits.size(); ++i) {
      if (i * granularity_ < offset + length && offset < (i + 1) * granularity_) bits[i] = true;
    }
  }
  void clear(uint64_t offset, uint64_t length) {
    for (uint64_t i = 0; i < bits.size(); ++i) {
      const uint64_t end = std::min(size_, (i + 1) * granularity_);
      if (i * granularity_ >= offset && end <= offset + length) bits[i] = false;
    }
  }
  void merge(const Model& source) {
    for (uint64_t i = 0; i < source.bits.size(); ++i) {
      const uint64_t begin = i * source.granularity_;
      if (source.bits[i]) mark(begin, std::min(source.granularity_, size_ - begin));
    }
  }
  void resize(uint64_t size) {
    size_ = size;
    bits.resize((size + granularity_ - 1) / granularity_);
  }

 private:
  uint64_t size_;
  uint64_t granularity_;

 public:
  std::vector<bool> bits;
};

TEST(DirtyBitmap, AgreesWithAModel) {
  std::mt19937_64 random(3);
  for (const uint64_t granularity : {512, 4096, 65536}) {
    // Around the borders of words and of a summary's words.
    for (uint64_t bits : {1, 63, 64, 65, 4095, 4097, 9000}) {
      uint64_t size = bits * granularity - (bits % 3) * 100;
      auto bitmap = make(size, granularity);
      Model model(size, granularity);
      for (int step = 0; step < 60; ++step) {
        const uint64_t offset = random() % size;
        uint64_t length = 1 + random() % (size - offset);
        if (random() % 2 != 0) length = 1 + random() % std::min<uint64_t>(length, granularity);
        switch (random() % 8) {
          case 0:
          case 1:
            bitmap->clear(offset, length);
            model.clear(offset, length);
            break;
          case 2:
            if (random() % 4 != 0) break;
            size = std::max<uint64_t>(512, random() % (size * 2));
            ASSERT_TRUE(bitmap->resize(size));
            model.resize(size);
            break;
          case 3:
            if (random() % 8 == 0) {
              bitmap->clear_all();
              model.clear(0, size);
            }
            break;
          default: bitmap->mark(offset, length); model.mark(offset, length);
        }
        ASSERT_EQ(bits_of(*bitmap), model.bits);
        ASSERT_EQ(runs_of(*bitmap), model.bits);
        ASSERT_EQ(bitmap->count(), static_cast<uint64_t>(std::ranges::count(model.bits, true)));
      }
    }
  }
}

TEST(DirtyBitmap, MergesAcrossGranularities) {
  std::mt19937_64 random(5);
  constexpr uint64_t kSize = 3'000'000;
  for (const uint64_t to : {512, 4096, 65536, 1 << 20}) {
    for (const uint64_t from : {512, 8192, 65536, 1 << 22}) {
      auto target = make(kSize, to);
      auto source = make(kSize, from);
      Model target_model(kSize, to), source_model(kSize, from);
      for (int i = 0; i < 5; ++i) {
        const uint64_t offset = random() % kSize;
        const uint64_t length = 1 + random() % std::min<uint64_t>(kSize - offset, 100'000);
        source->mark(offset, length);
        source_model.mark(offset, length);
        target->mark(kSize - 1 - offset, 1);
        target_model.mark(kSize - 1 - offset, 1);
      }
      ASSERT_TRUE(target->merge(*source));
      target_model.merge(source_model);
      EXPECT_EQ(bits_of(*target), target_model.bits) << from << " into " << to;
    }
  }
  auto other = make(kSize + 512, 512);
  EXPECT_EQ(make(kSize, 512)->merge(*other).error().code(), EINVAL);
}

TEST(DirtyBitmap, StoresAndLoadsItsBits) {
  std::mt19937_64 random(7);
  for (const uint64_t bits : {1, 64, 100, 5000}) {
    auto bitmap = make(bits * 512, 512);
    for (int i = 0; i < 40; ++i) bitmap->mark(random() % (bits * 512), 1 + random() % 4096);
    auto copy = make(bits * 512, 512);
    constexpr size_t kPiece = 64;
    for (uint64_t first = 0; first < bits; first += kPiece * 8) {
      std::vector<uint8_t> bytes(kPiece, 0xff);
      bitmap->tree().store(first, bytes);
      for (uint64_t i = 0; i < kPiece * 8; ++i) {
        const bool dirty = first + i < bits && bitmap->is_dirty((first + i) * 512);
        ASSERT_EQ(bytes[i / 8] >> (i % 8) & 1, dirty);
      }
      if (first + kPiece * 8 > bits) bytes.back() |= 0x80;  // bits behind the end mean nothing
      copy->tree().load(first, bytes);
    }
    if (bits % 512 != 0) {
      EXPECT_EQ(runs_of(*copy), runs_of(*bitmap));
    }
  }
}

TEST(DirtyBitmap, AGranularityHasLimits) {
  EXPECT_EQ(DirtyBitmap::create("b", 1 << 20, 3).error().message(),
            "Granularity must be power of 2 and at least 512");
  EXPECT_EQ(DirtyBitmap::create("b", 1 << 20, 256).error().message(),
            "Granularity must be power of 2 and at least 512");
  EXPECT_EQ(DirtyBitmap::create("b", 1 << 20, uint64_t{1} << 32).error().code(), EINVAL);
  EXPECT_EQ(DirtyBitmap::create("b", uint64_t{1} << 50, 512).error().code(), EFBIG);
  // As large as there is, and it costs nothing until it is used.
  auto largest = make(DirtyBitmap::kMaxBits * 512, 512);
  largest->mark(largest->size() - 1, 1);
  EXPECT_EQ(largest->next_dirty(0), (DirtyBitmap::Range{(DirtyBitmap::kMaxBits - 1) * 512, 512}));
  EXPECT_EQ(largest->count(), 1u);
}

TEST(DirtyBitmap, WhatIsFrozenStaysAndWhatComesIsKeptApart) {
  auto bitmap = make(1 << 20, 4096);
  bitmap->mark(0, 1);
  ASSERT_TRUE(bitmap->freeze());
  bitmap->mark(8192, 1);
  EXPECT_TRUE(bitmap->is_dirty(0));
  EXPECT_FALSE(bitmap->is_dirty(8192));
  bitmap->reclaim();
  EXPECT_TRUE(bitmap->is_dirty(0));
  EXPECT_TRUE(bitmap->is_dirty(8192));
  ASSERT_TRUE(bitmap->freeze());
  bitmap->mark(16384, 1);
  bitmap->abdicate();
  EXPECT_EQ(bitmap->next_dirty(0), (DirtyBitmap::Range{16384, 4096}));
  EXPECT_EQ(bitmap->count(), 1u);
  bitmap->mark(0, 1);
  EXPECT_EQ(bitmap->count(), 2u);
}

// Every bit that a marker sets is seen by the one that clears, then or later: none gets lost
// between a word and its summary.
TEST(DirtyBitmap, NoMarkIsLostBesideClearing) {
  constexpr uint64_t kBits = 64 * 64 * 3;
  constexpr unsigned kMarkers = 3;
  constexpr unsigned kRounds = 40;
  auto bitmap = make(kBits * 512, 512);
  std::vector<std::atomic<unsigned>> marked(kBits), seen(kBits);
  std::atomic<unsigned> running = kMarkers;
  std::vector<std::thread> threads;
  for (unsigned marker = 0; marker < kMarkers; ++marker) {
    threads.emplace_back([&, marker] {
      std::mt19937 random(marker);
      for (unsigned round = 0; round < kRounds * 500; ++round) {
        const uint64_t bit = random() % kBits;
        marked[bit].fetch_add(1);  // "written"
        bitmap->mark(bit * 512, 512);
      }
      running.fetch_sub(1);
    });
  }
  const auto sweep = [&] {
    for (auto range = bitmap->next_dirty(0); range;
         range = bitmap->next_dirty(range->offset + range->length)) {
      bitmap->clear(range->offset, range->length);
      for (uint64_t bit = range->offset / 512; bit < (range->offset + range->length) / 512; ++bit)
        seen[bit].store(marked[bit].load());
    }
  };
  while (running.load() != 0) sweep();
  for (auto& thread : threads) thread.join();
  sweep();
  EXPECT_EQ(bitmap->count(), 0u);
  for (uint64_t bit = 0; bit < kBits; ++bit) ASSERT_EQ(seen[bit].load(), marked[bit].load()) << bit;
}

// ---- Nodes

class RecordingTest : public testing::Test {
 protected:
  void SetUp() override {
    auto group = io::ReactorGroup::start({.reactors = 3});
    ASSERT_TRUE(group) << group.error().message();
    reactors_ = std::move(*group);
  }
  template <typename T>
  T run(io::Task<T> task) {
    return io::run_blocking(reactors_->at(0), std::move(task));
  }
  std::unique_ptr<Backend> open(const std::string& options) {
    OpenRequest request;
    request.options = *base::Options::from_key_values(options);
    request.flags.read_only = false;
    request.discard_unmap = true;
    auto opened = run(graph_.open(
        std::move(request), Permission::kConsistentRead | Permission::kWrite | Permission::kResize,
        kAllPermissions));
    EXPECT_TRUE(opened) << opened.error().message();
    return std::move(*opened);
  }

  std::unique_ptr<io::ReactorGroup> reactors_;
  DriverRegistry registry_ = DriverRegistry::builtin();
  base::Log log_;
  Graph graph_{{registry_, io::system_files(), log_}};
};

TEST_F(RecordingTest, WritesZeroesAndDiscardsAreMarked) {
  for (const char* options :
       {"driver=raw,file.driver=memory,file.size=1M",
        "driver=raw,file.driver=memory,file.size=1M,file.request-alignment=512",
        "driver=raw,file.driver=memory,file.size=1M,detect-zeroes=on"}) {
    auto backend = open(options);
    auto bitmap = make(backend->size(), 4096);
    backend->node().record_in(bitmap);
    std::vector<uint8_t> data(5000);
    EXPECT_TRUE(run(backend->write(10, io::BufferList(data))));
    data[0] = 1;
    EXPECT_TRUE(run(backend->write(100'000, io::BufferList(data))));
    EXPECT_TRUE(run(backend->zero(200'000, 1)));
    EXPECT_TRUE(run(backend->discard(300'000, 4096)));
    EXPECT_TRUE(run(backend->read(400'000, io::BufferList(data))));
    EXPECT_FALSE(run(backend->write(1 << 20, io::BufferList(data))));  // reached nothing
    backend->node().stop_recording_in(*bitmap);
    EXPECT_TRUE(run(backend->write(500'000, io::BufferList(data))));
    Model model(backend->size(), 4096);
    model.mark(10, 5000);
    model.mark(100'000, 5000);
    model.mark(200'000, 1);
    model.mark(300'000, 4096);
    EXPECT_EQ(bits_of(*bitmap), model.bits) << options;
    EXPECT_TRUE(run(backend->close()));
  }
}

TEST_F(RecordingTest, BitmapsGrowAndShrinkWithTheNode) {
  auto backend = open("driver=raw,file.driver=memory,file.size=1M");
  auto bitmap = make(backend->size(), 65536);
  backend->node().record_in(bitmap);
  std::vector<uint8_t> data(512);
  EXPECT_TRUE(run(backend->write((1 << 20) - 512, io::BufferList(data))));
  EXPECT_TRUE(run(backend->resize(3 << 20, Preallocation::kOff, true)));
  EXPECT_EQ(bitmap->size(), backend->size());
  EXPECT_TRUE(run(backend->write(2 << 20, io::BufferList(data))));
  EXPECT_EQ(bitmap->count(), 2u);
  EXPECT_TRUE(run(backend->resize(1 << 20, Preallocation::kOff, true)));
  EXPECT_EQ(bitmap->count(), 1u);
  EXPECT_TRUE(run(backend->resize(3 << 20, Preallocation::kOff, true)));
  EXPECT_EQ(bitmap->count(), 1u);
  EXPECT_TRUE(run(backend->close()));
}

io::Task<void> write_every(Backend& backend, uint64_t first, uint64_t step) {
  std::vector<uint8_t> data(512, 1);
  for (uint64_t at = first * 512; at < backend.size(); at += step * 512) {
    Result<void> written = co_await backend.write(at, io::BufferList(data));
    PLATTER_ASSERT(written);
  }
}

TEST_F(RecordingTest, ReactorsMarkBesideEachOther) {
  auto backend = open("driver=raw,file.driver=memory,file.size=4M");
  auto bitmap = make(backend->size(), 512);
  backend->node().record_in(bitmap);
  std::vector<io::Task<void>> tasks;
  for (unsigned i = 0; i < 3; ++i)
    tasks.push_back(io::run_on(reactors_->at(i), write_every(*backend, i, 4)));
  run(io::when_all(std::move(tasks)));
  EXPECT_EQ(bitmap->count(), bitmap->bits() / 4 * 3);
  for (uint64_t bit = 0; bit < bitmap->bits(); ++bit)
    ASSERT_EQ(bitmap->is_dirty(bit * 512), bit % 4 != 3);
  EXPECT_TRUE(run(backend->close()));
}

}  // namespace
}  // namespace platter::block
