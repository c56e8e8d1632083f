#include "export/nbd/extents.h"

#include <algorithm>

#include "base/try.h"

namespace platter::nbd {
namespace {

// The next run, of `length` bytes at most.
io::Task<Result<Extent>> find_allocation(const Export& served, uint64_t offset, uint64_t length) {
  PLATTER_CO_ASSIGN(const block::BlockStatus status,
                    co_await served.backend().status_above(nullptr, offset, length,
                                                           block::StatusDetail::kPrecise));
  const uint32_t flags = (status.data ? 0 : kStatusHole) | (status.zero ? kStatusZero : 0);
  co_return Extent{status.length, flags};
}

// Which image of the chain decides what it reads as: 1 is the first.
io::Task<Result<Extent>> find_depth(const Export& served, uint64_t offset, uint64_t length) {
  unsigned above = 0;
  PLATTER_CO_ASSIGN(const block::BlockStatus status,
                    co_await served.backend().status_above(nullptr, offset, length,
                                                           block::StatusDetail::kFast, &above));
  co_return Extent{status.length, status.allocated ? above + 1 : 0};
}

Extent find_dirty(const block::DirtyBitmap& bits, uint64_t offset, uint64_t length) {
  const auto dirty = bits.next_dirty(offset);
  if (!dirty || dirty->offset - offset >= length) return {length, 0};
  if (dirty->offset > offset) return {dirty->offset - offset, 0};
  return {dirty->length, kStatusDirty};
}

io::Task<Result<Extent>> find_one(const Export& served, const Export::Context& context,
                                  uint64_t offset, uint64_t length) {
  switch (context.kind) {
    case Export::ContextKind::kAllocation: return find_allocation(served, offset, length);
    case Export::ContextKind::kDepth: return find_depth(served, offset, length);
    case Export::ContextKind::kBitmap: break;
  }
  return io::Task<Result<Extent>>::ready(find_dirty(*context.bits, offset, length));
}

}  // namespace

io::Task<Result<void>> find_extents(const Export& served, const Export::Context& context,
                                    uint64_t offset, uint64_t length, size_t most,
                                    std::vector<Extent>& extents) {
  extents.clear();
  while (length != 0) {
    PLATTER_CO_ASSIGN(Extent found, co_await find_one(served, context, offset, length));
    found.length = std::min(found.length, length);
    if (!extents.empty() && extents.back().flags == found.flags) {
      extents.back().length += found.length;
    } else if (extents.size() == most) {
      break;
    } else {
      extents.push_back(found);
    }
    offset += found.length;
    length -= found.length;
  }
  co_return Result<void>();
}

}  // namespace platter::nbd
