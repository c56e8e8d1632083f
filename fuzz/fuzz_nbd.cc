// A client of an NBD server that says anything at all, whole or in pieces, to a server with a disk
// in memory, one that is for reading only, and a bitmap. In a simulated world, so that a hang is
// noticed.
//
// The first byte is how many bytes come at a time; the second one's lowest bit: what follows comes
// after STARTTLS, too.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "block/graph.h"
#include "block/registry.h"
#include "export/nbd/test_client.h"
#include "io/simulation.h"

namespace {

using namespace platter;

constexpr uint64_t kBytes = 256 << 10;

void require(bool holds) {
  if (!holds) std::abort();
}

io::Task<std::unique_ptr<block::Backend>> open(block::Graph& graph, std::string_view options,
                                               bool writable) {
  block::OpenRequest request;
  request.options = *base::Options::from_key_values(options);
  request.flags.read_only = !writable;
  request.discard_unmap = true;
  request.policy = OpenPolicy::own_directory();
  block::Permissions needed = block::Permission::kConsistentRead;
  if (writable) needed |= block::Permission::kWrite;
  auto opened = co_await graph.open(std::move(request), needed, block::kAllPermissions);
  require(opened.has_value());
  co_return std::move(*opened);
}

io::Task<void> talk(block::Graph& graph, std::span<const uint8_t> input) {
  auto disk = co_await open(graph, "driver=memory,size=262144", true);
  auto fixed = co_await open(graph, "driver=null-co,size=4G,read-zeroes=on", false);
  std::vector<io::Reactor*> reactors = {io::Reactor::current()};
  auto bits = *block::DirtyBitmap::create("b", kBytes, 4096);
  bits->mark(5000, 10000);
  {
    nbd::Export writable(*disk, {.name = "disk",
                                 .description = "a disk",
                                 .writable = true,
                                 .allocation_depth = true,
                                 .bitmaps = {{"b", bits}},
                                 .reactors = reactors});
    nbd::Export fixed_export(*fixed, {.name = "", .reactors = reactors});
    const size_t step = input.empty() || input[0] == 0 ? SIZE_MAX : input[0];
    const bool secured = input.size() > 1 && (input[1] & 1) != 0;
    input = input.subspan(std::min<size_t>(2, input.size()));
    nbd::test::ScriptedStream stream(input, step);
    nbd::test::TestHost host;
    host.all = {&writable, &fixed_export};
    if (secured) host.tls = &stream;
    // Whatever becomes of it, nothing is under way then.
    if (auto ended = co_await nbd::test::converse(stream, host); !ended)
      require(!ended.error().message().empty());
  }
  require((co_await disk->close()).has_value());
  require((co_await fixed->close()).has_value());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  io::Simulation simulation(1);
  const auto registry = block::DriverRegistry::builtin();
  base::Log log;
  {
    block::Graph graph({.registry = registry, .files = simulation.files(), .log = log});
    simulation.run(talk(graph, {data, size}));
  }
  return 0;
}
