#include "io/simulation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "base/bytes.h"
#include "base/try.h"
#include "io/file_io.h"
#include "io/sync.h"

namespace platter::io {
namespace {

constexpr uint64_t kSector = SimulatedMedium::kSectorBytes;

std::unique_ptr<File> open_file(Simulation& sim, const std::string& name) {
  auto file = sim.files().open(name, {.write = true, .create = true});
  EXPECT_TRUE(file.has_value());
  return std::move(*file);
}

Task<Result<void>> fill(File& file, uint64_t offset, size_t length, uint8_t value,
                        bool durable = false) {
  std::vector<uint8_t> bytes(length, value);
  co_return co_await write_full(file, offset, {bytes.data(), bytes.size()}, {}, durable);
}
Task<Result<std::vector<uint8_t>>> read_all(File& file, uint64_t offset, size_t length) {
  std::vector<uint8_t> bytes(length, 0xee);
  PLATTER_CO_TRY(co_await read_full(file, offset, {bytes.data(), bytes.size()}));
  co_return bytes;
}

TEST(Simulation, FilesKeepWhatIsWrittenAndSurviveIntoTheNextWorld) {
  SimulatedDisk disk;
  {
    Simulation sim(1);
    auto file = open_file(sim, "a");
    ASSERT_TRUE(sim.run(fill(*file, 5000, 3000, 7)));
    EXPECT_EQ(file->info()->size, 8000u);
    EXPECT_EQ(sim.files().open("b", {}).error().code(), ENOENT);
    disk = sim.disk();
  }
  Simulation next(2, {}, disk);
  auto file = open_file(next, "a");
  auto bytes = next.run(read_all(*file, 4999, 4000));
  ASSERT_TRUE(bytes);
  EXPECT_EQ((*bytes)[0], 0);
  EXPECT_EQ(std::count(bytes->begin(), bytes->end(), 7), 3000);
  EXPECT_EQ((*bytes)[3001], 0);
  EXPECT_EQ(**file->seek_data(0), 4096u);
  EXPECT_EQ(**file->seek_hole(4096), 8000u);
  EXPECT_FALSE(file->seek_data(8192)->has_value());
}

Task<void> sleep_long(std::vector<int>& order, int hours) {
  co_await Reactor::current()->sleep_for(std::chrono::hours(hours));
  order.push_back(hours);
}

TEST(Simulation, AFileHasManyNames) {
  Simulation sim(1);
  auto file = open_file(sim, "/a/b");
  ASSERT_TRUE(sim.run(fill(*file, 0, 700, 7)));
  for (const char* name : {"/a/b", "//a/b", "/./a/././b", "/a//b"}) {
    const auto info = sim.files().info(name);
    ASSERT_TRUE(info) << name;
    EXPECT_EQ(info->size, 700u);
  }
  for (const char* name : {"a/b", "./a/b", "/a/b.", "/a/.b", "/a"})
    EXPECT_EQ(sim.files().info(name).error().code(), ENOENT) << name;
  EXPECT_TRUE(sim.files().open("./c", {.write = true, .create = true}));
  EXPECT_TRUE(sim.files().remove("c"));
}

TEST(Simulation, TimeIsVirtual) {
  Simulation sim(3, {.reactors = 2});
  std::vector<int> order;
  Gate gate;
  for (int hours : {300, 100, 200})
    gate.spawn(sim.reactor(static_cast<unsigned>(hours / 100) % 2), sleep_long(order, hours));
  sim.run(gate.close());
  EXPECT_EQ(order, (std::vector<int>{100, 200, 300}));
  EXPECT_GE(sim.now(), std::chrono::hours(300));
}

Task<void> note(std::string& order, char mark) {
  for (int i = 0; i < 3; ++i) {
    order += mark;
    co_await Reactor::current()->yield();
  }
}
std::string order_of(uint64_t seed) {
  Simulation sim(seed, {.reactors = 3});
  std::string order;
  Gate gate;
  for (char mark = 'a'; mark <= 'f'; ++mark)
    gate.spawn(sim.reactor(static_cast<unsigned>(mark) % 3), note(order, mark));
  sim.run(gate.close());
  return order;
}

TEST(Simulation, TheSeedDecidesTheOrder) {
  EXPECT_EQ(order_of(1), order_of(1));
  std::set<std::string> orders;
  for (uint64_t seed = 0; seed < 20; ++seed) orders.insert(order_of(seed));
  EXPECT_EQ(orders.size(), 20u);
}

Task<void> hold_in_turn(AsyncMutex& mutex, bool& inside, int times) {
  for (int i = 0; i < times; ++i) {
    auto lock = co_await mutex.lock();
    EXPECT_FALSE(std::exchange(inside, true));
    co_await Reactor::current()->yield();
    inside = false;
  }
}

TEST(Simulation, LocksHoldInEveryOrder) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    Simulation sim(seed, {.reactors = 4});
    AsyncMutex mutex;
    bool inside = false;
    Gate gate;
    for (unsigned i = 0; i < 8; ++i)
      gate.spawn(sim.reactor(i % 4), hold_in_turn(mutex, inside, 10));
    sim.run(gate.close());
  }
}

// ---- Power

// Writes rounds of known values over a few sectors and knows, for every sector, what may be there
// after a cut: the value that the last completed sync covered, or any later one.
struct Workload {
  static constexpr uint64_t kSectors = 24;
  std::vector<uint8_t> latest = std::vector<uint8_t>(kSectors);
  std::vector<std::set<uint8_t>> possible{kSectors, std::set<uint8_t>{0}};
};

Task<Result<void>> run_workload(File& file, Workload& work, int rounds) {
  Random random(Reactor::current()->random());
  for (int round = 1; round <= rounds; ++round) {
    uint64_t first = random.below(Workload::kSectors);
    uint64_t count = 1 + random.below(Workload::kSectors - first);
    auto value = static_cast<uint8_t>(round);
    bool durable = random.one_in(4);
    for (uint64_t sector = first; sector < first + count; ++sector)
      work.possible[sector].insert(value);
    PLATTER_CO_TRY(co_await fill(file, first * kSector, count * kSector, value, durable));
    for (uint64_t sector = first; sector < first + count; ++sector) {
      work.latest[sector] = value;
      if (durable) work.possible[sector] = {value};
    }
    if (!random.one_in(3)) continue;
    auto covered = work.latest;
    PLATTER_CO_TRY(co_await sync(file));
    for (uint64_t sector = 0; sector < Workload::kSectors; ++sector)
      work.possible[sector] = {covered[sector]};
  }
  co_return Result<void>();
}

TEST(Simulation, ACutKeepsWhatWasSyncedAndAnyMixtureOfTheRest) {
  uint64_t lost = 0, kept = 0, torn = 0, cuts = 0;
  for (uint64_t seed = 0; seed < 3000; ++seed) {
    Workload work;
    Simulation sim(seed);
    auto file = open_file(sim, "disk");
    ASSERT_TRUE(file->truncate(Workload::kSectors * kSector));
    ASSERT_TRUE(sim.run(sync(*file)));
    sim.cut_power_after(sim.random().below(60));
    auto end = sim.run(run_workload(*file, work, 12));
    if (!sim.power_is_cut()) {
      EXPECT_TRUE(end.has_value());
      continue;
    }
    ++cuts;
    if (!end) EXPECT_EQ(end.error().code(), EIO);  // it may have done its last before the cut
    auto bytes = sim.disk().get("disk");
    ASSERT_EQ(bytes.size(), Workload::kSectors * kSector) << "seed " << seed;
    bool some_lost = false, some_kept = false;
    for (uint64_t sector = 0; sector < Workload::kSectors; ++sector) {
      uint8_t value = bytes[sector * kSector];
      ASSERT_TRUE(std::all_of(bytes.begin() + static_cast<ptrdiff_t>(sector * kSector),
                              bytes.begin() + static_cast<ptrdiff_t>((sector + 1) * kSector),
                              [&](uint8_t byte) { return byte == value; }));
      ASSERT_TRUE(work.possible[sector].contains(value)) << "seed " << seed;
      if (work.possible[sector].size() == 1) continue;
      (value == work.latest[sector] ? some_kept : some_lost) = true;
    }
    lost += some_lost && !some_kept;
    kept += some_kept && !some_lost;
    torn += some_kept && some_lost;
  }
  EXPECT_GT(cuts, 1000u);
  EXPECT_GT(lost, 100u);
  EXPECT_GT(kept, 100u);
  EXPECT_GT(torn, 100u);
}

Task<Result<void>> grow_unsynced(File& file) {
  PLATTER_CO_TRY(co_await fill(file, 0, 4096, 1));
  PLATTER_CO_TRY(co_await sync(file));
  PLATTER_CO_TRY(co_await fill(file, 4096, 4096, 2));
  co_return Result<void>();
}

TEST(Simulation, AGrowthThatWasNotSyncedMayBeLostAndReadsZeroWithoutItsData) {
  std::set<uint64_t> sizes;
  bool grown_without_data = false;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    Simulation sim(seed);
    auto file = open_file(sim, "f");
    ASSERT_TRUE(sim.run(grow_unsynced(*file)));
    sim.cut_power();
    auto bytes = sim.disk().get("f");
    sizes.insert(bytes.size());
    ASSERT_GE(bytes.size(), 4096u);
    EXPECT_EQ(std::count(bytes.begin(), bytes.end(), 1), 4096);
    grown_without_data |= bytes.size() == 8192 && bytes[4096] == 0;
  }
  EXPECT_EQ(sizes, (std::set<uint64_t>{4096, 8192}));
  EXPECT_TRUE(grown_without_data);
}

Task<Result<void>> shrink_and_grow(File& file) {
  PLATTER_CO_TRY(co_await fill(file, 0, 8192, 1));
  PLATTER_CO_TRY(co_await sync(file));
  PLATTER_CO_TRY(file.truncate(4096));
  PLATTER_CO_TRY(file.truncate(8192));
  PLATTER_CO_TRY(co_await fill(file, 0, 512, 3, true));
  co_return Result<void>();
}

TEST(Simulation, WhatATruncationTookDoesNotComeBackBesideTheNewSize) {
  for (uint64_t seed = 0; seed < 100; ++seed) {
    Simulation sim(seed);
    auto file = open_file(sim, "f");
    ASSERT_TRUE(sim.run(shrink_and_grow(*file)));
    sim.cut_power();
    auto bytes = sim.disk().get("f");
    ASSERT_EQ(bytes.size(), 8192u);
    EXPECT_EQ(bytes[0], 3);
    EXPECT_EQ(bytes[4095], 1);
    EXPECT_TRUE(base::is_zero({bytes.data() + 4096, 4096}));
  }
}

Task<Result<void>> punch_unsynced(File& file) {
  PLATTER_CO_TRY(co_await fill(file, 0, 65536, 9));
  PLATTER_CO_TRY(co_await sync(file));
  PLATTER_CO_TRY(co_await allocate(file, AllocateMode::kPunchHole, 4096, 32768));
  co_return Result<void>();
}

TEST(Simulation, APunchIsVolatileUntilItIsSynced) {
  std::set<int64_t> left;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    Simulation sim(seed);
    auto file = open_file(sim, "f");
    ASSERT_TRUE(sim.run(punch_unsynced(*file)));
    auto now = sim.run(read_all(*file, 4096, 32768));
    EXPECT_TRUE(base::is_zero(*now));
    sim.cut_power();
    auto bytes = sim.disk().get("f");
    left.insert(std::count(bytes.begin(), bytes.end(), 9));
  }
  EXPECT_TRUE(left.contains(65536));
  EXPECT_TRUE(left.contains(65536 - 32768));
  EXPECT_GT(left.size(), 5u);
}

Task<int> write_until_error(File& file) {
  for (int i = 0;; ++i) {
    auto end = co_await fill(file, 0, 512, static_cast<uint8_t>(i));
    if (!end) co_return end.error().code();
  }
}

TEST(Simulation, AfterACutEverythingFailsAndUnwinds) {
  Simulation sim(4, {.reactors = 3});
  auto file = open_file(sim, "f");
  sim.cut_power_after(1000);
  for (unsigned reactor = 0; reactor < 3; ++reactor)
    EXPECT_EQ(sim.run(write_until_error(*file), reactor), EIO);
  EXPECT_TRUE(sim.power_is_cut());
  EXPECT_EQ(file->truncate(0).error().code(), EIO);
  EXPECT_EQ(sim.files().open("f", {}).error().code(), EIO);
}

// ---- Faults

TEST(Simulation, AChosenOperationFails) {
  Simulation sim(5);
  auto file = open_file(sim, "f");
  sim.fail_operation(1, ENOSPC);
  EXPECT_TRUE(sim.run(fill(*file, 0, 512, 1)));
  EXPECT_EQ(sim.run(fill(*file, 0, 512, 1)).error().code(), ENOSPC);
  EXPECT_TRUE(sim.run(fill(*file, 0, 512, 1)));
  EXPECT_EQ(sim.operations(), 3u);
}

TEST(Simulation, AFullDiskIsENOSPC) {
  Simulation sim(6, {.capacity = 8 * 4096});
  auto file = open_file(sim, "f");
  EXPECT_TRUE(sim.run(fill(*file, 0, 8 * 4096, 1)));
  EXPECT_EQ(sim.run(fill(*file, 8 * 4096, 1, 1)).error().code(), ENOSPC);
  EXPECT_TRUE(sim.run(fill(*file, 0, 4096, 2)));
}

TEST(Simulation, ShortTransfersAreFinished) {
  Simulation sim(7, {.short_transfers_ppm = 1'000'000});
  auto file = open_file(sim, "f");
  std::vector<uint8_t> bytes(100'000);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i / 300);
  ASSERT_TRUE(sim.run(write_full(*file, 1234, {bytes.data(), bytes.size()})));
  EXPECT_GT(sim.operations(), 3u);
  EXPECT_EQ(*sim.run(read_all(*file, 1234, bytes.size())), bytes);
}

Task<int> count_failures(File& file) {
  int failures = 0;
  for (int i = 0; i < 1000; ++i) failures += !(co_await read_all(file, 0, 512)).has_value();
  co_return failures;
}

TEST(Simulation, RandomErrorsComeAtTheirRate) {
  Simulation sim(8, {.read_errors_ppm = 100'000});
  auto file = open_file(sim, "f");
  int failures = sim.run(count_failures(*file));
  EXPECT_GT(failures, 60);
  EXPECT_LT(failures, 140);
}

TEST(Simulation, DirectFilesWantAlignment) {
  Simulation sim(9, {.direct_alignment = 4096});
  auto file = *sim.files().open("f", {.write = true, .create = true, .direct = true});
  EXPECT_EQ(file->io_alignment(), 4096u);
  AlignedBuffer buffer(8192);
  buffer.view().fill_zero();
  EXPECT_TRUE(sim.run(write_full(*file, 0, buffer.view())));
  EXPECT_EQ(sim.run(write_full(*file, 512, buffer.view())).error().code(), EINVAL);
  EXPECT_EQ(sim.run(write_full(*file, 0, buffer.view(512, 4096))).error().code(), EINVAL);
}

TEST(Simulation, LocksOfOpenFilesConflict) {
  Simulation sim(10);
  auto a = open_file(sim, "f");
  auto b = open_file(sim, "f");
  EXPECT_TRUE(a->lock(100, 10, LockKind::kShared));
  EXPECT_TRUE(b->lock(105, 1, LockKind::kShared));
  EXPECT_EQ(b->lock(100, 1, LockKind::kExclusive).error().code(), EAGAIN);
  EXPECT_TRUE(a->lock(100, 3, LockKind::kNone));
  EXPECT_TRUE(b->test_lock(100, 3, LockKind::kExclusive));
  EXPECT_EQ(b->test_lock(100, 4, LockKind::kExclusive).error().code(), EAGAIN);
  a.reset();
  EXPECT_TRUE(b->lock(0, 0, LockKind::kExclusive));
}

TEST(Simulation, ADiskGoesToTheHostAndBack) {
  SimulatedDisk disk;
  std::vector<uint8_t> bytes(100'000, 0);
  bytes[50'000] = 1;
  bytes[99'999] = 2;
  disk.put("a", bytes);
  std::string path = testing::TempDir() + "platter-simulated-disk";
  ASSERT_TRUE(disk.export_file("a", path));
  SimulatedDisk other;
  ASSERT_TRUE(other.import_file(path, "b"));
  EXPECT_EQ(other.get("b"), bytes);
  EXPECT_TRUE(system_files().remove(path));
}

}  // namespace
}  // namespace platter::io
