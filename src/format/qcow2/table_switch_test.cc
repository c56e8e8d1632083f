// What a switch makes of counts and copied flags, what it refuses, and that it changes nothing
// until it changes everything.

#include "format/qcow2/table_switch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <iterator>

#include "base/bytes.h"
#include "base/try.h"
#include "block/backend.h"
#include "block/graph.h"
#include "block/registry.h"
#include "format/qcow2/check.h"
#include "format/qcow2/metadata_io.h"
#include "format/qcow2/stored_counts.h"
#include "io/simulation.h"

namespace platter::format::qcow2 {
namespace {

using block::Permission;

constexpr const char* kName = "/disk.qcow2";
constexpr uint64_t kCluster = 4096;
// Guest clusters: a run of two, and one under another L2 table.
constexpr uint64_t kWritten[] = {3, 4, 700};
constexpr uint64_t kNewBytes = 32 * kCluster;

struct World {
  explicit World(const io::SimulatedDisk& disk = {})
      : simulation(7, {}, disk), registry(block::DriverRegistry::builtin()) {}

  io::Simulation simulation;
  block::DriverRegistry registry;
  base::Log log;
};

struct Lines final : block::CheckReporter {
  void report(std::string line) override { lines.push_back(std::move(line)); }
  std::vector<std::string> lines;
};

io::Task<Result<std::unique_ptr<block::Backend>>> open(block::Graph& graph,
                                                       block::OpenFlags flags) {
  block::OpenRequest request;
  request.filename = kName;
  request.format = "qcow2";
  request.flags = flags;
  request.policy = OpenPolicy::deny();
  co_return co_await graph.open(
      std::move(request), Permission::kConsistentRead | Permission::kWrite | Permission::kResize,
      block::kAllPermissions);
}

io::Task<Result<void>> make_image(World& world, std::string options) {
  block::Graph graph({world.registry, world.simulation.files(), world.log});
  auto parsed = base::Options::from_key_values("size=4M,cluster_size=4k," + options);
  PLATTER_CO_TRY(co_await graph.create({.filename = kName, .format = "qcow2", .options = *parsed}));
  PLATTER_CO_ASSIGN(auto image, co_await open(graph, {.read_only = false}));
  Result<void> written;
  for (const uint64_t cluster : kWritten) {
    std::vector<uint8_t> bytes(kCluster, static_cast<uint8_t>(cluster));
    if (written) written = co_await image->write(cluster * kCluster, io::BufferList(bytes));
  }
  auto closed = co_await image->close();
  if (written) written = std::move(closed);
  co_return written;
}

io::SimulatedDisk disk_with_image(const std::string& options = "compat=1.1") {
  World world;
  const auto made = world.simulation.run(make_image(world, options));
  EXPECT_TRUE(made.has_value()) << made.error().message();
  return world.simulation.disk();
}

using Work = std::function<io::Task<Result<void>>(Image&)>;

// On the image as a check opens it: nothing of it is held in memory.
io::Task<Result<void>> on_image(World& world, const Work& work) {
  block::Graph graph({world.registry, world.simulation.files(), world.log});
  PLATTER_CO_ASSIGN(auto backend, co_await open(graph, {.read_only = false, .check = true}));
  block::Child& file = *backend->node().child("file");
  Result<void> result;
  if (auto header = co_await read_header(file, {}); !header) {
    result = std::unexpected(std::move(header).error());
  } else {
    Image image(backend->node(), file, world.log, *header);
    result = co_await work(image);
    // What is held of the header is what the file has.
    if (auto now = co_await read_header(file, {}); now) {
      EXPECT_EQ(image.header, *now);
    } else if (result) {
      result = std::unexpected(std::move(now).error());
    }
  }
  auto closed = co_await backend->close();
  if (result) result = std::move(closed);
  co_return result;
}

Result<void> run_on_image(World& world, const Work& work) {
  return world.simulation.run(on_image(world, work));
}

// ---- What there is in the file

// Where the guest's clusters and their tables are, and how often each is counted.
struct Facts {
  struct Place {
    uint64_t offset = 0;
    uint64_t count = 0;
    bool copied = false;
    bool operator==(const Place&) const = default;
  };
  std::vector<Place> tables;    // by L1 entry, those in use
  std::vector<Place> clusters;  // as kWritten has them
  uint64_t l1_count = 0;
};

io::Task<Result<void>> gather(Image& image, Facts& facts) {
  const Geometry& geometry = image.geometry;
  block::Child& file = *image.file;
  facts = {};
  PLATTER_CO_ASSIGN(const auto table, co_await read_refcount_table(file, image.header));
  const uint64_t l1_offset = image.header.l1_table_offset;
  facts.l1_count =
      co_await read_stored_count(file, image.header, table, l1_offset >> geometry.cluster_bits);
  io::AlignedBuffer l1(image.header.l1_bytes()), l2(geometry.cluster_size());
  PLATTER_CO_TRY(co_await read_padded(file, l1_offset, l1.view()));
  for (uint64_t i = 0; i < image.header.l1_entries; ++i) {
    const uint64_t entry = base::load_big<uint64_t>(l1.span(), i * kTableEntryBytes);
    if (entry == 0) continue;
    const uint64_t offset = entry & kOffsetMask;
    const uint64_t count =
        co_await read_stored_count(file, image.header, table, offset >> geometry.cluster_bits);
    facts.tables.push_back({offset, count, (entry & kCopiedFlag) != 0});
    PLATTER_CO_TRY(co_await read_padded(file, offset, l2.view()));
    for (const uint64_t cluster : kWritten) {
      if (geometry.l1_index(cluster * kCluster) != i) continue;
      const uint64_t data = base::load_big<uint64_t>(
          l2.span(), geometry.l2_index(cluster * kCluster) * kTableEntryBytes);
      const uint64_t host = data & kOffsetMask;
      facts.clusters.push_back(
          {host,
           co_await read_stored_count(file, image.header, table, host >> geometry.cluster_bits),
           (data & kCopiedFlag) != 0});
    }
  }
  co_return Result<void>{};
}

Facts facts_of(World& world) {
  Facts facts;
  const auto gathered =
      run_on_image(world, [&facts](Image& image) { return gather(image, facts); });
  EXPECT_TRUE(gathered.has_value()) << gathered.error().message();
  return facts;
}

std::vector<uint64_t> counts(const std::vector<Facts::Place>& places) {
  std::vector<uint64_t> result;
  for (const auto& place : places) result.push_back(place.count);
  return result;
}
std::vector<bool> copied_flags(const std::vector<Facts::Place>& places) {
  std::vector<bool> result;
  for (const auto& place : places) result.push_back(place.copied);
  return result;
}
std::vector<uint64_t> offsets(const std::vector<Facts::Place>& places) {
  std::vector<uint64_t> result;
  for (const auto& place : places) result.push_back(place.offset);
  return result;
}

io::Task<Result<void>> check_into(Image& image, block::CheckResult& result) {
  Lines lines;
  PLATTER_CO_ASSIGN(result, co_await check_image(*image.file, image.header, lines));
  co_return Result<void>{};
}

block::CheckResult check(World& world) {
  block::CheckResult result;
  const auto done =
      run_on_image(world, [&result](Image& image) { return check_into(image, result); });
  EXPECT_TRUE(done.has_value()) << done.error().message();
  return result;
}

// ---- What is done to it

io::Task<Result<std::vector<uint64_t>>> active_l1(TableSwitch& tables, const Image& image) {
  co_return co_await tables.read_l1(image.header.l1_table_offset, image.header.l1_entries);
}

io::Task<Result<void>> commit(TableSwitch& tables, Image& image, std::vector<uint64_t> l1,
                              std::vector<Snapshot> snapshots) {
  tables.settle_l1_flags(l1);
  co_return co_await tables.commit(l1, snapshots, image.header.size);
}

// Everything gets so many references more; nothing is there that they would be from.
io::Task<Result<void>> add_references(Image& image, unsigned more) {
  TableSwitch tables(image);
  PLATTER_CO_TRY(co_await tables.load(kNewBytes));
  PLATTER_CO_ASSIGN(auto l1, co_await active_l1(tables, image));
  for (unsigned i = 0; i < more; ++i) PLATTER_CO_TRY(co_await tables.add_tree(l1));
  PLATTER_CO_TRY(co_await tables.settle_flags(l1, 1 + more));
  co_return co_await commit(tables, image, std::move(l1), {});
}

io::Task<Result<void>> drop_references(Image& image, unsigned fewer) {
  TableSwitch tables(image);
  PLATTER_CO_TRY(co_await tables.load(kNewBytes));
  PLATTER_CO_ASSIGN(auto l1, co_await active_l1(tables, image));
  for (unsigned i = 0; i < fewer; ++i) PLATTER_CO_TRY(co_await tables.drop_tree(l1));
  PLATTER_CO_TRY(co_await tables.settle_flags(l1, 1));
  co_return co_await commit(tables, image, std::move(l1), {});
}

// What taking a snapshot is.
io::Task<Result<void>> take_snapshot(Image& image) {
  TableSwitch tables(image);
  PLATTER_CO_TRY(co_await tables.load(kNewBytes));
  PLATTER_CO_ASSIGN(auto l1, co_await active_l1(tables, image));
  PLATTER_CO_TRY(co_await tables.add_tree(l1));
  PLATTER_CO_TRY(co_await tables.settle_flags(l1, 2));
  Snapshot snapshot;
  snapshot.id = "1";
  snapshot.name = "before";
  snapshot.disk_size = image.header.size;
  snapshot.l1_entries = image.header.l1_entries;
  PLATTER_CO_ASSIGN(snapshot.l1_table_offset, tables.allocate_table(image.header.l1_bytes()));
  PLATTER_CO_TRY(co_await tables.write_l1(snapshot.l1_table_offset, l1));
  co_return co_await commit(tables, image, std::move(l1), {std::move(snapshot)});
}

// ---- Tests

TEST(TableSwitch, EverythingInATreeIsCountedOnceMoreAndOnceLess) {
  World world(disk_with_image());
  const Facts before = facts_of(world);
  ASSERT_EQ(before.tables.size(), 2u);
  ASSERT_EQ(before.clusters.size(), std::size(kWritten));
  EXPECT_EQ(counts(before.clusters), (std::vector<uint64_t>{1, 1, 1}));

  auto done = run_on_image(world, [](Image& image) { return add_references(image, 2); });
  ASSERT_TRUE(done.has_value()) << done.error().message();
  const Facts shared = facts_of(world);
  EXPECT_EQ(counts(shared.tables), (std::vector<uint64_t>{3, 3}));
  EXPECT_EQ(counts(shared.clusters), (std::vector<uint64_t>{3, 3, 3}));
  EXPECT_EQ(offsets(shared.clusters), offsets(before.clusters)) << "data stays where it is";
  EXPECT_EQ(shared.l1_count, 1u);
  EXPECT_EQ(check(world).corruptions, 0u);

  done = run_on_image(world, [](Image& image) { return drop_references(image, 2); });
  ASSERT_TRUE(done.has_value()) << done.error().message();
  const Facts after = facts_of(world);
  EXPECT_EQ(counts(after.tables), (std::vector<uint64_t>{1, 1}));
  EXPECT_EQ(counts(after.clusters), (std::vector<uint64_t>{1, 1, 1}));
  EXPECT_EQ(offsets(after.clusters), offsets(before.clusters));
  const auto found = check(world);
  EXPECT_EQ(found.corruptions + found.leaks + found.check_errors, 0u) << "old tables are free";
}

TEST(TableSwitch, CopiedFlagsSayWhatIsOursAlone) {
  World world(disk_with_image());
  const Facts before = facts_of(world);
  EXPECT_EQ(copied_flags(before.tables), (std::vector<bool>{true, true}));
  EXPECT_EQ(copied_flags(before.clusters), (std::vector<bool>{true, true, true}));

  ASSERT_TRUE(run_on_image(world, take_snapshot).has_value());
  const Facts shared = facts_of(world);
  EXPECT_EQ(copied_flags(shared.tables), (std::vector<bool>{false, false}));
  EXPECT_EQ(copied_flags(shared.clusters), (std::vector<bool>{false, false, false}));
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_NE(shared.tables[i].offset, before.tables[i].offset) << "never changed in place";
    EXPECT_EQ(shared.tables[i].count, 2u) << "both L1 tables name the copy";
  }
  const auto found = check(world);
  EXPECT_EQ(found.corruptions + found.leaks + found.check_errors, 0u);
}

// A table whose flags are right already is left where it is.
TEST(TableSwitch, WhatNeedsNoOtherFlagsIsNotCopied) {
  World world(disk_with_image());
  const Facts before = facts_of(world);
  ASSERT_TRUE(
      run_on_image(world, [](Image& image) { return add_references(image, 0); }).has_value());
  const Facts after = facts_of(world);
  EXPECT_EQ(after.tables, before.tables);
  EXPECT_EQ(after.clusters, before.clusters);
}

io::Task<Result<void>> take_and_look(Image& image, std::vector<uint64_t> lost, bool& freed) {
  TableSwitch tables(image);
  PLATTER_CO_TRY(co_await tables.load(kNewBytes));
  PLATTER_CO_ASSIGN(auto l1, co_await active_l1(tables, image));
  PLATTER_CO_TRY(co_await tables.add_tree(l1));
  PLATTER_CO_TRY(co_await tables.settle_flags(l1, 2));
  lost.push_back(image.header.l1_table_offset);
  lost.push_back(image.header.refcount_table_offset);
  PLATTER_CO_TRY(co_await commit(tables, image, l1, {}));
  freed = std::ranges::all_of(lost, [&tables](uint64_t offset) {
    return std::ranges::any_of(tables.freed(), [offset](const auto& range) {
      return range.offset <= offset && offset < range.offset + range.bytes;
    });
  });
  for (const auto& range : tables.freed()) {
    for (const uint64_t entry : l1) {
      if (entry >= range.offset && entry < range.offset + range.bytes) freed = false;
    }
  }
  co_return Result<void>{};
}

TEST(TableSwitch, TellsWhatLostItsLastReference) {
  World world(disk_with_image());
  const std::vector<uint64_t> old_tables = offsets(facts_of(world).tables);
  bool freed = false;
  const auto done =
      run_on_image(world, [&](Image& image) { return take_and_look(image, old_tables, freed); });
  ASSERT_TRUE(done.has_value()) << done.error().message();
  EXPECT_TRUE(freed);
}

// ---- Refusals. Nothing has been written then.

class Refusal : public testing::Test {
 protected:
  void expect(const io::SimulatedDisk& disk, const Work& work, int code, const char* message) {
    World world(disk);
    const auto result = run_on_image(world, work);
    ASSERT_FALSE(result.has_value());
    EXPECT_EQ(result.error().code(), code) << result.error().message();
    EXPECT_THAT(result.error().message(), testing::HasSubstr(message));
    EXPECT_EQ(world.simulation.disk().get(kName), disk.get(kName));
  }
};

TEST_F(Refusal, ACountThatIsFull) {
  expect(
      disk_with_image("refcount_bits=1"), [](Image& image) { return add_references(image, 1); },
      EINVAL, "No more than 1 references fit in the 1 bits of a count");
  expect(
      disk_with_image("refcount_bits=2"), [](Image& image) { return add_references(image, 3); },
      EINVAL, "No more than 3 references fit in the 2 bits of a count");
  World world(disk_with_image("refcount_bits=2"));
  EXPECT_TRUE(
      run_on_image(world, [](Image& image) { return add_references(image, 2); }).has_value());
  EXPECT_EQ(counts(facts_of(world).clusters), (std::vector<uint64_t>{3, 3, 3}));
}

io::Task<Result<void>> narrow(Image& image) {
  TableSwitch tables(image);
  PLATTER_CO_TRY(co_await tables.load(kNewBytes));
  co_return tables.change_refcount_order(0);
}

TEST_F(Refusal, AWidthThatACountDoesNotFit) {
  World world(disk_with_image());
  ASSERT_TRUE(
      run_on_image(world, [](Image& image) { return add_references(image, 1); }).has_value());
  expect(world.simulation.disk(), narrow, ENOTSUP,
         "Cannot decrease refcount entry width to 1 bits: Cluster at offset");
}

io::Task<Result<void>> allocate_for_ever(Image& image) {
  TableSwitch tables(image);
  PLATTER_CO_TRY(co_await tables.load(kNewBytes));
  for (;;) {
    PLATTER_CO_ASSIGN(const uint64_t offset, tables.allocate_table(4 * kCluster));
    EXPECT_EQ(offset % kCluster, 0u);
  }
}

TEST_F(Refusal, MoreTablesThanWereAnnounced) {
  expect(disk_with_image(), allocate_for_ever, ENOSPC, "No room for new tables");
}

TEST_F(Refusal, AFileOfMoreClustersThanTheBudgetAllows) {
  io::SimulatedDisk disk = disk_with_image();
  disk.files().at(kName).size = uint64_t{1} << 51;
  World world(disk);
  const auto result = run_on_image(world, [](Image& image) { return add_references(image, 1); });
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code(), ENOMEM) << result.error().message();
  EXPECT_EQ(world.simulation.disk().files().at(kName).size, uint64_t{1} << 51);
}

TEST_F(Refusal, AReferenceToWhatIsNotCounted) {
  expect(
      disk_with_image(), [](Image& image) { return drop_references(image, 2); }, EIO,
      "is used and not counted; a check tells more");
}

io::Task<Result<void>> drop_table_outside(Image& image) {
  TableSwitch tables(image);
  PLATTER_CO_TRY(co_await tables.load(0));
  co_return tables.drop_table(uint64_t{1} << 50, kCluster);
}

TEST_F(Refusal, AReferenceOutsideTheFile) {
  expect(disk_with_image(), drop_table_outside, EIO, "outside the file");
}

// ---- Failures

io::Task<Result<void>> read_written(World& world) {
  block::Graph graph({world.registry, world.simulation.files(), world.log});
  PLATTER_CO_ASSIGN(auto image, co_await open(graph, {.read_only = false}));
  Result<void> result;
  for (const uint64_t cluster : kWritten) {
    std::vector<uint8_t> bytes(kCluster);
    if (result) result = co_await image->read(cluster * kCluster, io::BufferList(bytes));
    EXPECT_EQ(bytes, std::vector<uint8_t>(kCluster, static_cast<uint8_t>(cluster)));
  }
  auto closed = co_await image->close();
  if (result) result = std::move(closed);
  co_return result;
}

io::Task<Result<void>> take_and_note(Image& image, bool& taken) {
  auto result = co_await take_snapshot(image);
  taken = result.has_value();
  co_return result;
}

// Whichever operation fails: the image is what it was, in every table and every count.
TEST(TableSwitch, AFailureBeforeTheSwitchLeavesTheImageAsItWas) {
  const io::SimulatedDisk disk = disk_with_image();
  World untouched(disk);
  const Facts before = facts_of(untouched);
  unsigned failed = 0;
  for (uint64_t operation = 0;; ++operation) {
    World world(disk);
    world.simulation.fail_operation(operation, EIO);
    bool taken = false;
    const auto result =
        run_on_image(world, [&taken](Image& image) { return take_and_note(image, taken); });
    const bool all_went_well = world.simulation.operations() <= operation;
    ASSERT_EQ(result.has_value(), all_went_well) << operation;
    World later(world.simulation.disk());
    const Facts after = facts_of(later);
    EXPECT_EQ(copied_flags(after.tables), std::vector<bool>(2, !taken)) << operation;
    if (!taken) {
      ++failed;
      EXPECT_EQ(after.tables, before.tables) << operation;
      EXPECT_EQ(after.clusters, before.clusters) << operation;
    }
    const auto found = check(later);
    EXPECT_EQ(found.corruptions + found.leaks + found.check_errors, 0u) << operation;
    const auto read = later.simulation.run(read_written(later));
    EXPECT_TRUE(read.has_value()) << operation << ": " << read.error().message();
    if (all_went_well) break;
  }
  EXPECT_GT(failed, 10u);  // reads, tables, refcounts, flush, header, flush
}

// The old image or the new one, and nothing in between, wherever the power goes.
TEST(TableSwitch, APowerCutLeavesOneOfTheTwoImages) {
  const io::SimulatedDisk disk = disk_with_image();
  unsigned old_images = 0, new_images = 0;
  for (uint64_t step = 1;; ++step) {
    World world(disk);
    world.simulation.cut_power_after(step);
    (void)run_on_image(world, take_snapshot);
    if (!world.simulation.power_is_cut()) break;
    World later(world.simulation.disk());
    const Facts after = facts_of(later);
    const bool is_new = after.tables.at(0).count == 2;
    ++(is_new ? new_images : old_images);
    EXPECT_EQ(copied_flags(after.tables), std::vector<bool>(2, !is_new)) << step;
    EXPECT_EQ(copied_flags(after.clusters), std::vector<bool>(3, !is_new)) << step;
    const auto found = check(later);
    EXPECT_EQ(found.corruptions + found.leaks + found.check_errors, 0u) << step;
  }
  EXPECT_GT(old_images, 10u);
  EXPECT_GT(new_images, 0u);
}

}  // namespace
}  // namespace platter::format::qcow2
