// Space for compressed streams: of any length, one behind the other. A host cluster that several
// touch counts a reference for each.

#include "base/try.h"
#include "format/qcow2/refcounts.h"

namespace platter::format::qcow2 {

io::Task<Result<uint64_t>> Refcounts::allocate_bytes(uint64_t length) {
  const Geometry& geometry = image_.geometry;
  const unsigned bits = geometry.cluster_bits;
  PLATTER_ASSERT(length > 0 && length <= geometry.cluster_size());
  co_await image_.file->pass(block::DebugEvent::kClusterAllocBytes);
  if (tail_ != 0) {
    PLATTER_CO_ASSIGN(const uint64_t count, co_await get(tail_ >> bits));
    if (count == 0 || count == geometry.max_refcount()) tail_ = 0;
  }
  uint64_t offset = tail_;
  if (tail_ == 0 || length > geometry.cluster_size() - geometry.offset_in_cluster(tail_)) {
    PLATTER_CO_ASSIGN(const HostRun next, co_await allocate(1));
    const bool continues = tail_ != 0 && (tail_ >> bits) + 1 == next.offset >> bits;
    offset = continues ? tail_ : next.offset;
    if (continues) {
      auto referenced = co_await add_reference(offset >> bits);
      if (!referenced) {
        PLATTER_CO_TRY(co_await release(next.offset, 1));
        co_return std::unexpected(std::move(referenced).error());
      }
    }
  } else {
    PLATTER_CO_TRY(co_await add_reference(offset >> bits));
  }
  tail_ = offset + length;
  if (geometry.is_aligned(tail_)) tail_ = 0;
  if ((offset + length - 1) >> compressed_offset_bits(bits) != 0) {
    PLATTER_CO_TRY(co_await release_bytes(offset, length));
    co_return fail(EFBIG, "qcow2: The image has no host offsets left for compressed clusters");
  }
  co_return offset;
}

io::Task<Result<void>> Refcounts::release_bytes(uint64_t offset, uint64_t length) {
  const Geometry& geometry = image_.geometry;
  const uint64_t first = geometry.align_down(offset);
  co_return co_await release(first, geometry.clusters_for(offset + length - first));
}

// The cluster has a reference already, and room for one more.
io::Task<Result<void>> Refcounts::add_reference(uint64_t cluster) {
  PLATTER_CO_ASSIGN(auto pin, co_await slice(cluster));
  const uint64_t index = cluster % slice_entries();
  const unsigned order = image_.geometry.refcount_order;
  qcow2::store_refcount(pin.words(), index, order,
                        qcow2::load_refcount(pin.words(), index, order) + 1);
  pin.mark_dirty();
  image_.changed(0);
  co_return Result<void>{};
}

}  // namespace platter::format::qcow2
