// Extents: what a metadata context says of a range (the NBD protocol, "Metadata querying", and
// QEMU's own namespace).
#pragma once

#include <cstdint>
#include <vector>

#include "export/nbd/export.h"
#include "io/task.h"

namespace platter::nbd {

struct Extent {
  uint64_t length;
  uint32_t flags;  // of the context
  bool operator==(const Extent&) const = default;
};

// How much a reply may tell.
inline constexpr size_t kMaxExtents = size_t{128} << 10;

// Replaces `extents` by those of [offset, offset + length), which is not empty and lies within the
// export: neighbours differ, and together they are the range or, where they are more than `most`,
// its beginning.
io::Task<Result<void>> find_extents(const Export& served, const Export::Context& context,
                                    uint64_t offset, uint64_t length, size_t most,
                                    std::vector<Extent>& extents);

}  // namespace platter::nbd
