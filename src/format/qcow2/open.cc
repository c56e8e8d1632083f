// Opening an image, and what the driver says about it.

#include <fmt/format.h>

#include <algorithm>

#include "base/try.h"
#include "block/graph.h"
#include "format/qcow2/chart.h"
#include "format/qcow2/check.h"
#include "format/qcow2/data_file.h"
#include "format/qcow2/driver.h"
#include "format/qcow2/info.h"
#include "format/qcow2/metadata_io.h"
#include "format/qcow2/repair.h"
#include "format/qcow2/state_recovery.h"

namespace platter::format::qcow2 {

Qcow2::Qcow2(block::Node& node, block::Child& file, const base::Log& log, Header header,
             const CacheSizes& caches, const OpenOptions& options)
    : image_(node, file, log, std::move(header)),
      options_(options),
      caches_(caches),
      size_(image_.header.virtual_size()),
      frees_(image_.geometry.cluster_bits),
      refcounts_(image_, frees_, refcount_cache(caches)),
      mapping_(image_, refcounts_, frees_, l2_cache(caches, image_.geometry, size())),
      writeback_(image_, mapping_, refcounts_, frees_),
      bitmaps_(image_, refcounts_, frees_, writeback_) {}

io::Task<Result<std::unique_ptr<block::Driver>>> Qcow2::open(block::OpenContext& context) {
  const block::OpenFlags flags = context.flags();
  PLATTER_CO_ASSIGN(block::Child * file, co_await context.open_child("file", block::kImageRole));
  PLATTER_CO_ASSIGN(
      Header header,
      co_await read_header(*file, {.tolerate_damage = flags.check,
                                   .max_metadata_bytes = context.policy().max_metadata_bytes}));
  if (!flags.no_io) PLATTER_CO_TRY(check_supported(header));
  if (!flags.read_only && !flags.check && header.has(kCorrupt)) {
    co_return fail(EACCES, "qcow2: Image is corrupt; cannot be opened read/write");
  }
  PLATTER_CO_ASSIGN(block::Child * data,
                    co_await open_data_file(context, header, file->node().filename()));
  PLATTER_CO_ASSIGN(const CacheSizes caches, read_cache_sizes(context.options(), header));
  PLATTER_CO_ASSIGN(const OpenOptions options,
                    read_open_options(context.options(), header, flags.unmap));
  const bool no_io = flags.no_io || flags.check;
  std::unique_ptr<Qcow2> driver(new Qcow2(context.node(), *file, context.graph().environment().log,
                                          std::move(header), caches, options));
  driver->no_io_ = no_io;
  driver->told_ = context.options();
  if (data != nullptr) driver->image_.data = data;
  PLATTER_CO_TRY(co_await driver->prepare_encryption(context));
  driver->state_directory_ = context.graph().environment().state_directory;
  if (!no_io && !flags.read_only) PLATTER_CO_TRY(co_await driver->use_state_file());
  // A check reads the file by itself: damaged tables must not keep it from being done.
  if (!no_io && !flags.read_only && driver->image_.header.has(kDirty))
    PLATTER_CO_TRY(co_await driver->repair_dirty());
  if (!no_io) PLATTER_CO_TRY(co_await driver->load());
  if (!no_io && !flags.read_only) PLATTER_CO_TRY(co_await driver->begin_writing());
  PLATTER_CO_TRY(co_await driver->load_bitmaps(flags, context.policy().max_metadata_bytes));
  PLATTER_CO_ASSIGN(driver->snapshots_, co_await driver->load_snapshots(flags));
  if (driver->image_.writable) {
    driver->image_.guard.watch(options.overlap_checks);
    PLATTER_CO_TRY(co_await driver->claim_structures());
  }
  // Last: whoever starts it waits for its end, which close() does.
  driver->start_cleaner();
  co_return std::unique_ptr<block::Driver>(std::move(driver));
}

// What a process that died has left is written to the disk; from here on we leave the same.
// Nothing is cached.
io::Task<Result<void>> Qcow2::use_state_file() {
  if (state_directory_.empty()) co_return Result<void>{};
  PLATTER_CO_ASSIGN(auto state, open_state_file(image_, state_directory_));
  PLATTER_CO_TRY(co_await take_up_left_state(image_, *state));
  PLATTER_CO_TRY(state->begin({.refcount_slots = refcounts_.cache().state_slots(),
                               .refcount_slice_bytes = refcounts_.cache().slice_bytes(),
                               .l2_slots = mapping_.cache().state_slots(),
                               .l2_slice_bytes = mapping_.cache().slice_bytes(),
                               .unit_bytes = image_.metadata_unit}));
  state_ = std::move(state);
  refcounts_.keep_in(state_->refcount_slices(), state_->refcount_table());
  mapping_.keep_in(state_->l2_slices(), state_->l1());
  co_return Result<void>{};
}

// Who only looks at the metadata needs no key.
io::Task<Result<void>> Qcow2::prepare_encryption(block::OpenContext& context) {
  const Header& header = image_.header;
  PLATTER_CO_TRY(check_encryption_options(context.options(), header));
  if (header.crypt_method == CryptMethod::kNone || context.flags().check) co_return Result<void>{};
  if (header.crypt_method == CryptMethod::kLuks) {
    PLATTER_CO_ASSIGN(luks_, co_await read_luks_header(*image_.file, header));
  }
  if (no_io_) co_return Result<void>{};
  PLATTER_CO_ASSIGN(encryption_,
                    co_await Encryption::unlock(image_, luks_, context.options(),
                                                context.graph().environment().secrets));
  co_return Result<void>{};
}

io::Task<Result<std::vector<Snapshot>>> Qcow2::load_snapshots(block::OpenFlags flags) {
  auto table = co_await read_snapshot_table(*image_.file, image_.header);
  if (table) {
    snapshot_table_bytes_ = table->bytes;
    co_return std::move(table->snapshots);
  }
  if (flags.check) co_return std::vector<Snapshot>{};  // a check reports it
  co_return std::unexpected(std::move(table).error());
}

io::Task<Result<void>> Qcow2::load_bitmaps(block::OpenFlags flags, uint64_t max_metadata_bytes) {
  if (image_.header.bitmaps_out_of_step) {
    image_.log->warning(
        "a program lacking bitmap support modified this file, so all bitmaps are now "
        "considered inconsistent");
  }
  co_await bitmaps_.load(size(), max_metadata_bytes);
  // Info has nothing else to say of them.
  if (flags.no_io && bitmaps_.unreadable() != nullptr)
    co_return std::unexpected(*bitmaps_.unreadable());
  if (image_.writable) bitmaps_.begin_writing();
  co_return Result<void>{};
}

io::Task<Result<void>> Qcow2::load() {
  PLATTER_CO_TRY((co_await refcounts_.load()));
  co_return co_await mapping_.load();
}

// Makes the image one that may be written: counts are right, features that we do not know are told
// so.
io::Task<Result<void>> Qcow2::begin_writing() {
  image_.writable = true;
  const uint64_t known = image_.header.autoclear & kKnownAutoclear;
  if (known != image_.header.autoclear) {
    PLATTER_CO_TRY(co_await image_.write_header_u64(field::kAutoclear, known));
    image_.header.autoclear = known;
  }
  write_prepared_ = image_.header.autoclear == raw_data_promise();
  lazy_refcounts_ = options_.lazy_refcounts;
  writeback_.set_lazy_refcounts(lazy_refcounts_);
  co_return Result<void>{};
}

// Under the allocation mutex, or while the image is opened.
io::Task<Result<void>> Qcow2::claim_structures() {
  OverlapGuard& guard = image_.guard;
  const Header& header = image_.header;
  guard.forget_all();
  guard.claim(kMainHeader, 0, header.cluster_size());
  mapping_.claim_structures();
  refcounts_.claim_structures();
  guard.claim(kSnapshotTable, header.snapshots_offset, snapshot_table_bytes_);
  if (header.bitmaps)
    guard.claim(kBitmapDirectory, header.bitmaps->directory_offset, header.bitmaps->directory_size);
  for (const Snapshot& snapshot : snapshots_) {
    if (!check_snapshot_l1(snapshot, image_.geometry)) continue;  // it is never read either
    guard.claim(kInactiveL1, snapshot.l1_table_offset, snapshot.l1_entries * kTableEntryBytes);
    if (!guard.watches(kInactiveL2)) continue;
    io::AlignedBuffer l1(std::max<uint64_t>(snapshot.l1_entries, 1) * kTableEntryBytes);
    PLATTER_CO_TRY(co_await read_padded(*image_.file, snapshot.l1_table_offset, l1.view()));
    for (uint64_t i = 0; i < snapshot.l1_entries; ++i) {
      const uint64_t table = base::load_big<uint64_t>(l1.span(), i * kTableEntryBytes);
      if ((table & kOffsetMask) != 0)
        guard.claim(kInactiveL2, table & kOffsetMask, header.cluster_size());
    }
  }
  co_return Result<void>{};
}

// An image that was not closed: its counts may be anything.
io::Task<Result<void>> Qcow2::repair_dirty() {
  block::FirstLine found;
  auto result = co_await repair_image(image_, found, block::Repair::kAll);
  Result<void> repaired;
  if (!result)
    repaired = std::unexpected(std::move(result).error());
  else if (result->corruptions != 0 || result->check_errors != 0)
    repaired = fail(EIO, found.line());
  if (!repaired) repaired.error().add_context("Could not repair dirty image");
  co_return repaired;
}

block::Limits Qcow2::limits() const {
  const block::Limits& file = image_.file->node().limits();
  const block::Limits& data = image_.data->node().limits();
  const uint32_t cluster = static_cast<uint32_t>(image_.geometry.cluster_size());
  block::Limits limits;
  limits.request_alignment =
      std::min(std::max(file.request_alignment, data.request_alignment), cluster);
  limits.memory_alignment = std::max(file.memory_alignment, data.memory_alignment);
  limits.discard_alignment = cluster;
  limits.zero_alignment = image_.geometry.subcluster_size();
  if (!image_.geometry.external_data) limits.compressed_alignment = cluster;
  if (encryption_ != nullptr) {
    limits.request_alignment =
        std::max(limits.request_alignment, static_cast<uint32_t>(crypto::kSectorBytes));
    limits.compressed_alignment = 0;  // what is compressed would not be encrypted
  }
  limits.supports_unmap_zero = image_.geometry.version >= 3;
  limits.supports_fast_zero = image_.geometry.version >= 3;
  limits.supports_fua = true;
  return limits;
}

Result<block::DriverInfo> Qcow2::info() const {
  block::DriverInfo info =
      describe(image_.header, bitmaps_.directory(), snapshots_, luks_ ? &*luks_ : nullptr);
  info.vm_state_offset = vm_state_offset();
  return info;
}

io::Task<Result<uint64_t>> Qcow2::allocated_size() {
  PLATTER_CO_ASSIGN(uint64_t bytes, co_await image_.file->node().driver().allocated_size());
  if (image_.data == image_.file) co_return bytes;
  PLATTER_CO_ASSIGN(const uint64_t data, co_await image_.data->node().driver().allocated_size());
  co_return bytes + data;
}

// Resizing the image resizes its data file.
block::Driver::ChildPermissions Qcow2::child_permissions(const block::Child& child,
                                                         block::Permissions needed,
                                                         block::Permissions shared) const {
  auto wish = Driver::child_permissions(child, needed, shared);
  if (&child == image_.data && needed.has(block::Permission::kResize))
    wish.needed |= block::Permission::kWrite | block::Permission::kResize;
  return wish;
}

std::optional<block::BackingReference> Qcow2::backing_reference() const {
  if (image_.header.backing_file.empty()) return std::nullopt;
  return block::BackingReference{image_.header.backing_file, image_.header.backing_format};
}

// With preallocation what is mapped reads as what the file held.
bool Qcow2::zero_initialised() const {
  return no_io_ || mapping_.l1_entries() == 0 || !mapping_.has_table(0) ||
         image_.geometry.extended_l2 ||
         (encryption_ == nullptr && image_.data->node().driver().zero_initialised());
}

io::Task<Result<block::CheckResult>> Qcow2::repair(block::CheckReporter& reporter,
                                                   block::Repair what) {
  if (!no_io_ || image_.node->read_only())
    co_return fail(EINVAL, "Only an image that is open for a check, and for writing, is repaired");
  co_return co_await repair_image(image_, reporter, what);
}

io::Task<Result<block::CheckResult>> Qcow2::check(block::CheckReporter& reporter) {
  if (image_.writable && !image_.corrupt) {
    auto turn = co_await maintenance_.lock();
    PLATTER_CO_TRY(co_await settle());
  }
  co_return co_await check_image(*image_.file, image_.header, reporter);
}

io::Task<Result<block::CheckResult>> Qcow2::chart(block::LayoutVisitor& visitor) {
  if (image_.writable && !image_.corrupt) {
    auto turn = co_await maintenance_.lock();
    PLATTER_CO_TRY(co_await settle());
  }
  co_return co_await chart_image(*image_.file, image_.header, visitor);
}

}  // namespace platter::format::qcow2
