#include <algorithm>
#include <memory>
#include <vector>

#include "base/log.h"
#include "base/try.h"
#include "block/graph.h"
#include "block/registry.h"
#include "gtest/gtest.h"
#include "io/simulation.h"

namespace platter::format::qcow2 {
namespace {

using block::Permission;

constexpr uint64_t kCluster = 65536;
constexpr uint64_t kOldSize = kCluster + 4096;
constexpr uint64_t kNewSize = kCluster + 8192;

// An overlay ends in the middle of a cluster of which the guest has written its part, and grows by
// less than the rest of it, over a longer backing file.
io::Task<Result<std::vector<uint8_t>>> grow_within_a_cluster(block::Graph& graph,
                                                             std::string compat) {
  const block::Permissions needed =
      Permission::kConsistentRead | Permission::kWrite | Permission::kResize;
  base::Options options;
  options.set("size", std::to_string(kOldSize));
  options.set("compat", std::move(compat));
  options.set("backing_file", std::string("base"));
  options.set("backing_fmt", std::string("raw"));
  PLATTER_CO_TRY(
      co_await graph.create({.filename = "/top", .format = "qcow2", .options = options}));
  block::OpenRequest request;
  request.filename = "/top";
  request.format = "qcow2";
  request.flags.read_only = false;
  request.policy = OpenPolicy::anything();
  PLATTER_CO_ASSIGN(auto backend,
                    co_await graph.open(std::move(request), needed, block::kAllPermissions));
  std::vector<uint8_t> guest(4096, 0x77), all(kNewSize);
  auto done = co_await backend->write(kCluster, io::BufferList(std::span(guest)));
  if (done) done = co_await backend->resize(kNewSize, block::Preallocation::kOff, true);
  if (done) done = co_await backend->read(0, io::BufferList(std::span(all)));
  auto closed = co_await backend->close();
  if (done) done = std::move(closed);
  if (!done) co_return std::unexpected(std::move(done).error());
  co_return all;
}

class GrowTest : public testing::TestWithParam<const char*> {};

TEST_P(GrowTest, WithinTheLastClusterKeepsWhatTheGuestWroteThere) {
  io::SimulatedDisk disk;
  disk.put("/base", std::vector<uint8_t>(4 * kCluster, 0x55));
  io::Simulation simulation(1, {}, disk);
  block::DriverRegistry registry = block::DriverRegistry::builtin();
  base::Log log;
  block::Graph graph({registry, simulation.files(), log});
  auto got = simulation.run(grow_within_a_cluster(graph, GetParam()));
  ASSERT_TRUE(got.has_value()) << got.error().message();
  const auto all_are = [&](uint64_t from, uint64_t to, uint8_t value) {
    return std::all_of(got->begin() + static_cast<ptrdiff_t>(from),
                       got->begin() + static_cast<ptrdiff_t>(to),
                       [value](uint8_t byte) { return byte == value; });
  };
  EXPECT_TRUE(all_are(0, kCluster, 0x55)) << "the backing file shows";
  EXPECT_TRUE(all_are(kCluster, kOldSize, 0x77)) << "the guest's data";
  EXPECT_TRUE(all_are(kOldSize, kNewSize, 0)) << "what came into sight";
}

INSTANTIATE_TEST_SUITE_P(Versions, GrowTest, testing::Values("0.10", "1.1"));

}  // namespace
}  // namespace platter::format::qcow2
