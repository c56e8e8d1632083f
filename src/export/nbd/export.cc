#include "export/nbd/export.h"

#include <algorithm>

#include "base/math.h"

namespace platter::nbd {
namespace {

constexpr uint64_t kSectorBytes = 512;
constexpr uint32_t kPreferredBytes = 4096;

}  // namespace

Export::Export(block::Backend& backend, ExportOptions options)
    : backend_(backend),
      options_(std::move(options)),
      size_(base::align_down(backend.size(), kSectorBytes)) {
  PLATTER_ASSERT(!options_.reactors.empty() && options_.name.size() <= kMaxString &&
                 options_.description.size() <= kMaxString);
  contexts_.push_back({"base:allocation", ContextKind::kAllocation, nullptr});
  if (options_.allocation_depth)
    contexts_.push_back({"qemu:allocation-depth", ContextKind::kDepth, nullptr});
  for (const auto& bitmap : options_.bitmaps)
    contexts_.push_back({"qemu:dirty-bitmap:" + bitmap.name, ContextKind::kBitmap, bitmap.bits});
}

uint16_t Export::flags(Framing framing, bool multi_connection) const {
  uint16_t flags = kHasFlags | kSendFlush | kSendFua | kSendCache;
  flags |= options_.writable ? kSendTrim | kSendWriteZeroes | kSendFastZero : kReadOnly;
  if (multi_connection) flags |= kCanMultiConnection;
  if (framing != Framing::kSimple) flags |= kSendDontFragment;
  if (framing == Framing::kExtended) flags |= kBlockStatusPayload;
  return flags;
}

BlockSizes Export::block_sizes() const {
  const block::Limits& limits = backend_.limits();
  BlockSizes sizes;
  sizes.least = limits.request_alignment;
  sizes.preferred = std::max(kPreferredBytes, sizes.least);
  if (limits.max_transfer != 0) sizes.most = std::min(limits.max_transfer, kMaxPayload);
  sizes.most = std::max(sizes.most, sizes.preferred);
  return sizes;
}

}  // namespace platter::nbd
