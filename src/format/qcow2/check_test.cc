// The check under I/O errors. What it says about damaged images is tests/badinput's subject.

#include "format/qcow2/check.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <optional>

#include "block/backend.h"
#include "block/graph.h"
#include "block/registry.h"
#include "io/simulation.h"

namespace platter::format::qcow2 {
namespace {

constexpr const char* kName = "/disk.qcow2";

struct Lines final : block::CheckReporter {
  void report(std::string line) override { lines.push_back(std::move(line)); }
  std::vector<std::string> lines;
};

struct World {
  explicit World(const io::SimulatedDisk& disk = {})
      : simulation(7, {}, disk), registry(block::DriverRegistry::builtin()) {}

  io::Simulation simulation;
  block::DriverRegistry registry;
  base::Log log;
};

io::Task<Result<void>> make_image(World& world, std::string options) {
  block::Graph graph({world.registry, world.simulation.files(), world.log});
  auto parsed = base::Options::from_key_values(options);
  co_return co_await graph.create({.filename = kName, .format = "qcow2", .options = *parsed});
}

io::Task<Result<block::CheckResult>> check(World& world, Lines& lines) {
  block::Graph graph({world.registry, world.simulation.files(), world.log});
  block::OpenRequest request;
  request.filename = kName;
  request.format = "qcow2";
  request.flags = {.no_backing = true, .check = true};
  request.policy = OpenPolicy::deny();
  auto image = co_await graph.open(std::move(request), block::Permission::kConsistentRead,
                                   block::kAllPermissions);
  if (!image) co_return std::unexpected(std::move(image).error());
  auto result = co_await (*image)->node().driver().checkable()->check(lines);
  const auto closed = co_await (*image)->close();
  EXPECT_TRUE(closed.has_value());
  co_return result;
}

TEST(Check, EveryReadMayFailAndNothingLooksDamaged) {
  World maker;
  ASSERT_TRUE(
      maker.simulation.run(make_image(maker, "size=3M,cluster_size=1k,preallocation=metadata"))
          .has_value());
  const io::SimulatedDisk disk = maker.simulation.disk();
  unsigned failed = 0;
  for (uint64_t operation = 0;; ++operation) {
    World world(disk);
    world.simulation.fail_operation(operation, EIO);
    Lines lines;
    const auto result = world.simulation.run(check(world, lines));
    if (result) {
      EXPECT_EQ(result->corruptions, 0u) << operation;
      EXPECT_EQ(result->leaks, 0u) << operation;
      failed += result->check_errors != 0;
    } else {
      EXPECT_EQ(result.error().code(), EIO) << operation;
      ++failed;
    }
    if (world.simulation.operations() <= operation) break;
  }
  EXPECT_GT(failed, 4u);  // header, L1, refcount table, blocks, L2 tables
}

TEST(Check, CountsWhatIsMapped) {
  World world;
  ASSERT_TRUE(
      world.simulation.run(make_image(world, "size=1M,cluster_size=4k,preallocation=metadata"))
          .has_value());
  Lines lines;
  const auto result = world.simulation.run(check(world, lines));
  ASSERT_TRUE(result.has_value()) << result.error().message();
  EXPECT_EQ(result->total_clusters, 256u);
  EXPECT_EQ(result->allocated_clusters, 256u);
  EXPECT_EQ(result->fragmented_clusters, 0u);
  EXPECT_EQ(result->corruptions + result->leaks + result->check_errors, 0u);
  EXPECT_TRUE(lines.lines.empty());
}

}  // namespace
}  // namespace platter::format::qcow2
