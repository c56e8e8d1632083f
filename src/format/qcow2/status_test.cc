#include <memory>
#include <vector>

#include "base/log.h"
#include "base/try.h"
#include "block/graph.h"
#include "block/registry.h"
#include "gtest/gtest.h"
#include "io/simulation.h"
#include "io/sync.h"

namespace platter::format::qcow2 {
namespace {

using block::Permission;

constexpr uint64_t kCluster = 8192;
constexpr uint64_t kSliceCoverage = 512 * kCluster;  // of a slice of 4 KiB
constexpr uint64_t kTables = 4;                      // of two slices each
constexpr uint64_t kSize = 2 * kTables * kSliceCoverage;

// Writes a cluster into every slice at once: a cache of two slices has no room for what is dirty
// then.
io::Task<Result<void>> write_everywhere(block::Backend& backend, std::vector<uint8_t>& data) {
  std::vector<io::Task<Result<void>>> writes;
  for (uint64_t offset = 0; offset < kSize; offset += kSliceCoverage) {
    writes.push_back(backend.write(offset, io::BufferList(std::span(data))));
  }
  for (auto& result : co_await io::when_all(std::move(writes))) PLATTER_CO_TRY(std::move(result));
  co_return Result<void>{};
}

// How many bytes the status of the whole disk calls data.
io::Task<Result<uint64_t>> count_data(block::Backend& backend) {
  uint64_t data = 0;
  for (uint64_t offset = 0; offset < kSize;) {
    PLATTER_CO_ASSIGN(
        const block::BlockStatus status,
        co_await backend.status_above(nullptr, offset, kSize - offset, block::StatusDetail::kFast));
    if (status.data) data += status.length;
    offset += status.length;
  }
  co_return data;
}

io::Task<Result<uint64_t>> write_and_count(block::Graph& graph) {
  base::Options options;
  options.set("size", std::to_string(kSize));
  options.set("cluster_size", std::to_string(kCluster));
  PLATTER_CO_TRY(
      co_await graph.create({.filename = "/image", .format = "qcow2", .options = options}));
  block::OpenRequest request;
  request.filename = "/image";
  request.format = "qcow2";
  request.flags.read_only = false;
  request.options.set("l2-cache-size", std::string("8192"));
  request.options.set("l2-cache-entry-size", std::string("4096"));
  PLATTER_CO_ASSIGN(
      auto backend,
      co_await graph.open(std::move(request), Permission::kConsistentRead | Permission::kWrite,
                          block::kAllPermissions));
  std::vector<uint8_t> data(kCluster, 0x11);
  auto written = co_await write_everywhere(*backend, data);
  Result<uint64_t> counted = 0;
  if (written) counted = co_await count_data(*backend);
  auto closed = co_await backend->close();
  if (!written) co_return std::unexpected(std::move(written).error());
  if (!closed) co_return std::unexpected(std::move(closed).error());
  co_return counted;
}

TEST(Status, KnowsSlicesThatFoundNoRoomInTheCache) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    io::Simulation simulation(seed);
    block::DriverRegistry registry = block::DriverRegistry::builtin();
    base::Log log;
    block::Graph graph({registry, simulation.files(), log});
    auto data = simulation.run(write_and_count(graph));
    ASSERT_TRUE(data.has_value()) << data.error().message();
    ASSERT_EQ(*data, 2 * kTables * kCluster) << "seed " << seed;
  }
}

}  // namespace
}  // namespace platter::format::qcow2
