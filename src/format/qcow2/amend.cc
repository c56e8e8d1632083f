// Amending: what the header says of the image's version and features, and what follows from it. No
// request is in flight.

#include <fmt/format.h>

#include <algorithm>

#include "base/try.h"
#include "block/graph.h"
#include "format/qcow2/amend_options.h"
#include "format/qcow2/driver.h"
#include "format/qcow2/header_rewrite.h"
#include "format/qcow2/table_switch.h"

namespace platter::format::qcow2 {

io::Task<Result<void>> Qcow2::amend(const base::OptionSet& options, bool force,
                                    std::function<void(uint64_t, uint64_t)> progress) {
  PLATTER_CO_TRY(check_writable());
  PLATTER_CO_ASSIGN(const Amendment wanted, parse_amendment(options, image_.header));
  constexpr uint64_t kSteps = 6;
  progress(0, kSteps);
  if (wanted.slots) {
    PLATTER_CO_TRY(co_await encryption_->amend(*luks_, *wanted.slots,
                                               image_.node->graph().environment().secrets, force));
  }
  progress(1, kSteps);
  if (wanted.version > image_.header.version) PLATTER_CO_TRY(co_await upgrade());
  progress(2, kSteps);
  if (wanted.refcount_order != image_.header.refcount_order)
    PLATTER_CO_TRY(co_await change_refcount_order(wanted.refcount_order));
  progress(3, kSteps);
  if (wanted.lazy_refcounts != image_.header.has(kLazyRefcounts))
    PLATTER_CO_TRY(co_await set_lazy_refcounts(wanted.lazy_refcounts));
  if (wanted.data_file != image_.header.data_file ||
      wanted.data_file_raw != image_.header.has(kRawExternalData)) {
    PLATTER_CO_TRY(co_await change_data_file(wanted.data_file, wanted.data_file_raw));
  }
  progress(4, kSteps);
  if (wanted.size) {
    PLATTER_CO_TRY(co_await resize(*wanted.size, block::Preallocation::kOff, /*exact=*/true));
  }
  progress(5, kSteps);
  if (wanted.version < image_.header.version) PLATTER_CO_TRY(co_await downgrade());
  progress(kSteps, kSteps);
  co_return Result<void>{};
}

io::Task<Result<void>> Qcow2::rewrite_header(Header next) {
  auto lock = co_await image_.allocation.lock();
  auto features = co_await image_.features.lock();
  PLATTER_CO_TRY(co_await replace_header(image_, std::move(next)));
  // Whoever works in the background looks at it.
  if (image_.geometry.version != image_.header.version) image_.geometry = image_.header.geometry();
  co_return Result<void>{};
}

io::Task<Result<void>> Qcow2::upgrade() {
  Header next = image_.header;
  next.version = 3;
  co_return co_await rewrite_header(std::move(next));
}

// What the header says of it; the file that is open stays open.
io::Task<Result<void>> Qcow2::change_data_file(std::string name, bool raw) {
  Header next = image_.header;
  next.data_file = std::move(name);
  next.autoclear &= ~uint64_t{kRawExternalData};
  if (raw) next.autoclear |= kRawExternalData;
  co_return co_await rewrite_header(std::move(next));
}

io::Task<Result<void>> Qcow2::set_lazy_refcounts(bool on) {
  auto turn = co_await maintenance_.lock();
  // What is counted late is counted now.
  PLATTER_CO_TRY(co_await settle());
  const uint64_t bits = on ? image_.header.compatible | kLazyRefcounts
                           : image_.header.compatible & ~uint64_t{kLazyRefcounts};
  PLATTER_CO_TRY(co_await image_.write_header_u64(field::kCompatible, bits));
  PLATTER_CO_TRY(co_await image_.file->flush());
  image_.header.compatible = bits;
  PLATTER_CO_TRY(co_await image_.change_incompatible(0, kDirty));
  auto lock = co_await image_.allocation.lock();
  lazy_refcounts_ = on;
  allocation_prepared_ = false;
  writeback_.set_lazy_refcounts(on);
  co_return Result<void>{};
}

io::Task<Result<void>> Qcow2::change_refcount_order(unsigned order) {
  auto turn = co_await maintenance_.lock();
  PLATTER_CO_TRY(co_await settle());
  TableSwitch tables(image_);
  auto result = co_await change_refcount_order_in(tables, order);
  co_return co_await after_switch(tables, std::move(result));
}

io::Task<Result<void>> Qcow2::change_refcount_order_in(TableSwitch& tables, unsigned order) {
  const Header& header = image_.header;
  // The blocks that count the whole file, twice: they count themselves.
  const uint64_t clusters = image_.geometry.clusters_for(image_.file->size());
  const uint64_t block_bytes = ((clusters << order) / 8 + header.cluster_size()) * 2;
  PLATTER_CO_TRY(
      co_await tables.load(2 * block_bytes + header.l1_bytes() + kMaxSnapshotTableBytes));
  PLATTER_CO_TRY(tables.change_refcount_order(order));
  PLATTER_CO_ASSIGN(auto l1, co_await tables.read_l1(header.l1_table_offset, header.l1_entries));
  co_return co_await switch_to(tables, std::move(l1), snapshots_, header.size);
}

// Version 2 has no zero clusters: where no backing file would show through they become unallocated,
// elsewhere they are written.
io::Task<Result<void>> Qcow2::expand_zero_clusters() {
  const Geometry& geometry = image_.geometry;
  const block::Child* backing = image_.node->backing();
  const uint64_t shown = backing != nullptr ? backing->size() : 0;
  for (uint64_t offset = 0; offset < size();) {
    PLATTER_CO_ASSIGN(const Run run, co_await mapping_.lookup_long(offset, size() - offset));
    uint64_t end = offset + run.length;
    if (run.kind == ClusterKind::kZero || run.kind == ClusterKind::kZeroAllocated) {
      if (offset < shown) {
        end = std::min(end, geometry.clusters_for(shown) << geometry.cluster_bits);
        PLATTER_CO_TRY(co_await write_zeroes(offset, std::min(end, size())));
      } else {
        PLATTER_CO_TRY(co_await zero_range(offset,
                                           geometry.clusters_for(end) << geometry.cluster_bits,
                                           Release::kToBacking, FreeReason::kOther));
      }
    }
    offset = end;
  }
  co_return Result<void>{};
}

io::Task<Result<bool>> Qcow2::has_compressed_clusters() {
  for (uint64_t offset = 0; offset < size();) {
    PLATTER_CO_ASSIGN(const Run run, co_await mapping_.lookup_long(offset, size() - offset));
    if (run.kind == ClusterKind::kCompressed) co_return true;
    offset += run.length;
  }
  co_return false;
}

io::Task<Result<void>> Qcow2::downgrade() {
  if (image_.header.has(kExternalDataFile))
    co_return fail(ENOTSUP, "Cannot downgrade an image with a data file");
  constexpr uint64_t kKept = kDirty | kCorrupt | kCompressionTypeBit;
  if (const uint64_t others = image_.header.incompatible & ~kKept) {
    co_return fail(ENOTSUP, fmt::format("Cannot downgrade an image with incompatible features "
                                        "{:#x} set",
                                        others));
  }
  if (!snapshots_.empty())
    co_return fail(ENOTSUP, "An image with snapshots cannot be downgraded by this version");
  if (!bitmaps_.empty()) co_return fail(ENOTSUP, "An image with bitmaps cannot be downgraded");
  if (image_.header.compression_type != CompressionType::kDeflate) {
    PLATTER_CO_ASSIGN(const bool compressed, co_await has_compressed_clusters());
    if (compressed) {
      co_return fail(ENOTSUP,
                     "Cannot downgrade an image with zstd compression type and existing compressed "
                     "clusters");
    }
  }
  if (image_.node->backing() == nullptr && !image_.header.backing_file.empty()) {
    co_return fail(ENOTSUP, "Cannot downgrade an image whose backing file is not open");
  }
  if (image_.header.has(kLazyRefcounts)) PLATTER_CO_TRY(co_await set_lazy_refcounts(false));
  auto turn = co_await maintenance_.lock();
  PLATTER_CO_TRY(co_await expand_zero_clusters());
  PLATTER_CO_TRY(co_await settle());
  PLATTER_CO_TRY(co_await image_.change_incompatible(0, kDirty));
  Header next = image_.header;
  next.version = 2;
  next.incompatible = 0;
  next.compression_type = CompressionType::kDeflate;
  next.compatible = 0;
  next.autoclear = 0;
  next.bitmaps.reset();
  next.unknown_fields.clear();
  co_return co_await rewrite_header(std::move(next));
}

}  // namespace platter::format::qcow2
