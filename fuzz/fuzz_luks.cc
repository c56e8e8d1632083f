// A LUKS header of arbitrary bytes, on its own and as an image that is opened without its key.
//
// What is parsed must come back the same through its bytes. With a key it is opened only where the
// iterations are few: an input could make key derivation as long as it likes.

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "block/backend.h"
#include "block/graph.h"
#include "block/registry.h"
#include "fuzz_keys.h"
#include "io/simulation.h"

namespace {

using namespace platter;

void require(bool holds) {
  if (!holds) std::abort();
}

constexpr const char* kName = "/image";

io::Task<Result<void>> look(io::FileSystem& files, bool with_key) {
  const block::DriverRegistry registry = block::DriverRegistry::builtin();
  base::Log log;
  const fuzz::OneSecret secrets;
  block::Graph graph({registry, files, log, &secrets});
  block::OpenRequest request;
  request.filename = kName;
  request.format = "luks";
  request.flags = {.read_only = true, .no_io = !with_key};
  request.policy = OpenPolicy::deny();
  request.options.set("key-secret", std::string("s"));
  auto image = co_await graph.open(std::move(request), block::Permission::kConsistentRead,
                                   block::kAllPermissions);
  if (!image) co_return Result<void>{};
  require((*image)->node().driver().info().has_value());
  if (with_key && (*image)->size() != 0) {
    std::vector<uint8_t> bytes(std::min<uint64_t>((*image)->size(), 4096));
    (void)co_await (*image)->read(0, io::BufferList(bytes));
  }
  co_return co_await (*image)->close();
}

bool parse(std::span<const uint8_t> bytes) {
  const auto header = crypto::parse_luks_header(bytes);
  if (!header) {
    require(!header.error().message().empty());
    require(header.error().message().find('\n') == std::string::npos);
    return false;
  }
  require(crypto::probe_luks(bytes) == 100);
  require(header->key_bytes == crypto::key_bytes(header->cipher));
  require(header->key_bytes <= crypto::kMaxKeyBytes);
  const auto again = crypto::parse_luks_header(crypto::serialise_luks_header(*header));
  require(again.has_value() && *again == *header);
  return fuzz::is_quick(*header);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const uint8_t> bytes(data, size);
  const bool quick = parse(bytes);
  platter::io::SimulatedDisk disk;
  disk.put(kName, bytes);
  platter::io::Simulation simulation(1, {}, std::move(disk));
  require(simulation.run(look(simulation.files(), false)).has_value());
  if (quick) require(simulation.run(look(simulation.files(), true)).has_value());
  return 0;
}
