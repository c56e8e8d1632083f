// Cleaning, in virtual time: what goes and what stays, and that an image with it is read and closed
// as ever.

#include "format/qcow2/cache_cleaner.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/try.h"
#include "block/backend.h"
#include "block/graph.h"
#include "block/registry.h"
#include "io/reactor_group.h"
#include "io/simulation.h"
#include "support/scratch_directory.h"

namespace platter::format::qcow2 {
namespace {

using block::Permission;
using std::chrono::seconds;

constexpr seconds kInterval{600};
constexpr uint64_t kSliceBytes = 65536;  // a page of its own, on any machine

class CacheCleanerTest : public testing::Test {
 protected:
  TableCache l2_tables_{
      {.slice_bytes = kSliceBytes, .budget_bytes = 8 * kSliceBytes, .slice_count = 8}};
  TableCache refcounts_{
      {.slice_bytes = kSliceBytes, .budget_bytes = 8 * kSliceBytes, .slice_count = 8}};
  CacheCleaner cleaner_{l2_tables_, refcounts_};
};

io::Task<void> use(TableCache& cache, uint64_t key) {
  EXPECT_TRUE((co_await cache.acquire(key, nullptr, TableCache::kReadsZero)).has_value());
}

// Uses every slice once, and one of them again and again.
io::Task<void> use_and_wait(CacheCleaner& cleaner, TableCache& l2_tables, TableCache& refcounts,
                            seconds interval) {
  cleaner.start(interval);
  for (uint64_t key = 0; key < 8; ++key) {
    co_await use(l2_tables, key);
    co_await use(refcounts, key);
  }
  for (unsigned i = 0; i < 20; ++i) {
    co_await io::Reactor::current()->sleep_for(kInterval / 4);
    co_await use(l2_tables, 5);
  }
  co_await cleaner.stop();
}

TEST_F(CacheCleanerTest, WhatWasUsedSinceTheTurnBeforeStays) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    io::Simulation world(seed);
    CacheCleaner cleaner(l2_tables_, refcounts_);
    world.run(use_and_wait(cleaner, l2_tables_, refcounts_, kInterval));
    EXPECT_EQ(l2_tables_.held_bytes(), kSliceBytes) << seed;
    EXPECT_EQ(refcounts_.held_bytes(), 0u) << seed;
    EXPECT_TRUE(l2_tables_.read(5, [](SliceWords) {}));
    l2_tables_.clear();
  }
}

TEST_F(CacheCleanerTest, WithoutAnIntervalEverythingStays) {
  io::Simulation world(1);
  world.run(use_and_wait(cleaner_, l2_tables_, refcounts_, seconds(0)));
  EXPECT_EQ(l2_tables_.held_bytes(), 8 * kSliceBytes);
  EXPECT_EQ(refcounts_.held_bytes(), 8 * kSliceBytes);
}

io::Task<void> start(CacheCleaner& cleaner) {
  cleaner.start(seconds(UINT32_MAX));
  co_return;
}

TEST_F(CacheCleanerTest, StopsAtOnceFromAnyReactor) {
  auto reactors = io::ReactorGroup::start({.reactors = 2});
  ASSERT_TRUE(reactors.has_value());
  io::run_blocking((*reactors)->at(0), start(cleaner_));
  io::run_blocking((*reactors)->at(1), cleaner_.stop());
  io::run_blocking((*reactors)->at(0), cleaner_.stop());
}

// ---- In an image

constexpr uint64_t kImageBytes = uint64_t{1} << 30;
constexpr uint64_t kReads = 16;  // each in a slice of its own
constexpr uint64_t kStride = kImageBytes / kReads;

// How many operations on the file reading takes when nothing was asked of it for a long time.
io::Task<Result<uint64_t>> read_after_a_pause(block::Graph& graph, io::Simulation& world,
                                              const char* interval) {
  base::Options options;
  options.set("size", std::to_string(kImageBytes));
  PLATTER_CO_TRY(
      co_await graph.create({.filename = "/image", .format = "qcow2", .options = options}));
  block::OpenRequest request;
  request.filename = "/image";
  request.format = "qcow2";
  request.flags.read_only = false;
  request.options.set("cache-clean-interval", std::string(interval));
  PLATTER_CO_ASSIGN(
      auto backend,
      co_await graph.open(std::move(request), Permission::kConsistentRead | Permission::kWrite,
                          block::kAllPermissions));
  Result<void> result;
  uint64_t operations = 0;
  std::vector<uint8_t> bytes(4096);
  for (uint64_t i = 0; i < kReads && result; ++i) {
    std::ranges::fill(bytes, static_cast<uint8_t>(i + 1));
    result = co_await backend->write(i * kStride, io::BufferList(bytes));
  }
  if (result) result = co_await backend->flush();
  for (unsigned turn = 0; turn < 3 && result; ++turn) {
    co_await io::Reactor::current()->sleep_for(10 * kInterval);
    operations = world.operations();
    for (uint64_t i = 0; i < kReads && result; ++i) {
      result = co_await backend->read(i * kStride, io::BufferList(bytes));
      EXPECT_EQ(bytes, std::vector<uint8_t>(4096, static_cast<uint8_t>(i + 1)));
    }
    operations = world.operations() - operations;
    // What was linked in tables that come back is there to be changed.
    std::ranges::fill(bytes, static_cast<uint8_t>(turn + 1));
    if (result) result = co_await backend->write(0, io::BufferList(bytes));
    std::ranges::fill(bytes, uint8_t{1});
    if (result) result = co_await backend->write(0, io::BufferList(bytes));
  }
  auto closed = co_await backend->close();
  if (result) result = std::move(closed);
  if (!result) co_return std::unexpected(std::move(result).error());
  co_return operations;
}

uint64_t operations_after_a_pause(const char* interval, uint64_t seed) {
  io::Simulation world(seed);
  const block::DriverRegistry registry = block::DriverRegistry::builtin();
  base::Log log;
  block::Graph graph({registry, world.files(), log});
  auto operations = world.run(read_after_a_pause(graph, world, interval));
  EXPECT_TRUE(operations.has_value()) << operations.error().message();
  return operations.value_or(0);
}

TEST(CacheCleaning, TablesOfAnIdleImageAreReadAgain) {
  for (uint64_t seed = 0; seed < 10; ++seed) {
    EXPECT_EQ(operations_after_a_pause("0", seed), kReads);
    EXPECT_EQ(operations_after_a_pause("600", seed), 2 * kReads);
  }
}

// The process would wait for it at the end.
TEST(CacheCleaning, AnImageClosesAtOnceHoweverLongTheIntervalIs) {
  auto reactors = io::ReactorGroup::start({.reactors = 1});
  ASSERT_TRUE(reactors.has_value());
  support::ScratchDirectory scratch;
  const block::DriverRegistry registry = block::DriverRegistry::builtin();
  base::Log log;
  block::Graph graph({registry, io::system_files(), log});
  base::Options options;
  options.set("size", std::string("1M"));
  const std::string path = scratch.path("image");
  auto& reactor = (*reactors)->at(0);
  ASSERT_TRUE(io::run_blocking(
      reactor, graph.create({.filename = path, .format = "qcow2", .options = options})));
  block::OpenRequest request;
  request.filename = path;
  request.format = "qcow2";
  request.options.set("cache-clean-interval", std::to_string(UINT32_MAX));
  auto backend =
      io::run_blocking(reactor, graph.open(std::move(request), {}, block::kAllPermissions));
  ASSERT_TRUE(backend.has_value()) << backend.error().message();
  EXPECT_TRUE(io::run_blocking(reactor, (*backend)->close()).has_value());
}

}  // namespace
}  // namespace platter::format::qcow2
