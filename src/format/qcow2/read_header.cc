#include <algorithm>

#include "base/try.h"
#include "block/node.h"
#include "format/qcow2/header.h"
#include "io/buffer.h"

namespace platter::format::qcow2 {

io::Task<Result<Header>> read_header(block::Child& file, ParseOptions options) {
  // The header says how large a cluster is, and the first cluster holds all of it.
  uint64_t wanted = uint64_t{1} << kMinClusterBits;
  for (;;) {
    io::AlignedBuffer buffer(wanted);
    const uint64_t present = std::min(wanted, file.size());
    if (present != 0) PLATTER_CO_TRY(co_await file.read(0, buffer.view(0, present)));
    std::fill(buffer.data() + present, buffer.data() + wanted, uint8_t{0});
    PLATTER_CO_ASSIGN(const uint64_t cluster_size, declared_cluster_size(buffer.span()));
    if (cluster_size <= wanted) co_return parse_header(buffer.span(), options);
    wanted = cluster_size;
  }
}

}  // namespace platter::format::qcow2
