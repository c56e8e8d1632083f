// One header becomes another, while the image is in use.
//
// A disk writes one sector whole, and no more than that. A header may be longer: the list of
// extensions reaches beyond its first sector, and the name of the backing file lies behind them.
// But the first sector says where both go on. So what the next header has beyond it goes to a part
// of the first cluster where the present header has nothing, and is made durable there; then one
// write of the first sector makes the next header count. Specification: docs/format/qcow2.md,
// "Changing the header".
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "format/qcow2/header.h"
#include "io/task.h"
#include "platter/error.h"

namespace platter::format::qcow2 {

struct Image;

struct HeaderWrite {
  uint64_t offset;
  std::vector<uint8_t> bytes;
};

// In this order, each durable before the next.
struct HeaderRewrite {
  std::vector<HeaderWrite> writes;
  // From this one on the next header counts. Those before it touch nothing that the present one
  // has; one behind it overwrites with zeroes what is left over of that.
  size_t decisive = 0;
  // False: the cluster is too small for both, and the decisive write is more than a sector.
  bool atomic = true;
};

// `cluster` is the first cluster as it is, with a header that parse_header() takes. ENOSPC, EINVAL:
// as serialise_header() has it.
Result<HeaderRewrite> plan_header_rewrite(std::span<const uint8_t> cluster, const Header& next);

// Replaces the header in the file, durably, and then image.header. After an error the present one
// counts, or the image is no longer written to. Under the allocation mutex and `features`.
io::Task<Result<void>> replace_header(Image& image, Header next);

}  // namespace platter::format::qcow2
