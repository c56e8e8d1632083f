// Compacting: the image's file loses its holes. No request is in flight.

#include "base/bytes.h"
#include "base/try.h"
#include "format/qcow2/check.h"
#include "format/qcow2/compactor.h"
#include "format/qcow2/driver.h"
#include "format/qcow2/metadata_io.h"
#include "format/qcow2/repair.h"
#include "format/qcow2/stored_counts.h"
#include "io/reactor.h"

namespace platter::format::qcow2 {
namespace {

// Whoever moves clusters trusts every table: damage is for a repair, and leaks are let go of first.
io::Task<Result<void>> make_sound(Image& image) {
  block::FirstLine found;
  PLATTER_CO_ASSIGN(auto result, co_await check_image(*image.file, image.header, found));
  if (result.corruptions == 0 && result.check_errors == 0 && result.leaks != 0) {
    block::FirstLine repaired;
    PLATTER_CO_ASSIGN(result, co_await repair_image(image, repaired, block::Repair::kLeaks));
  }
  if (result.corruptions != 0 || result.check_errors != 0 || result.leaks != 0)
    co_return fail(EIO, "The image is damaged and has to be repaired first: " + found.line());
  co_return Result<void>{};
}

}  // namespace

io::Task<Result<block::CompactResult>> Qcow2::compact(
    io::CancelToken cancel, std::function<void(uint64_t, uint64_t)> progress) {
  PLATTER_CO_TRY(check_writable());
  // What is on its way back to the allocator is counted and referred to by nothing: it must arrive
  // before that is taken for a leak.
  while (reclaiming_.load()) co_await io::Reactor::current()->yield();
  auto turn = co_await maintenance_.lock();
  if ((image_.header.autoclear & ~uint64_t{kKnownAutoclear}) != 0) {
    auto lock = co_await image_.allocation.lock();
    PLATTER_CO_TRY(co_await prepare_write());
  }
  PLATTER_CO_TRY(co_await settle());
  block::CompactResult result = {.bytes_before = image_.file->size()};
  Compactor compactor(image_, encryption_.get(), cancel, std::move(progress));
  auto moved = co_await make_sound(image_);
  if (moved) {
    // A repair takes the dirty bit away. With it, what a cut in power leaks is found by whoever
    // writes next, as after any other change.
    auto lock = co_await image_.allocation.lock();
    allocation_prepared_ = allocation_prepared_ && image_.header.has(kDirty);
    moved = co_await prepare_counts();
  }
  if (moved) moved = co_await compactor.run();
  result.moved_bytes = compactor.moved_bytes();
  // Whatever became of it: the tables lie elsewhere now.
  PLATTER_CO_TRY(co_await reload_tables());
  if (moved && compactor.end() < image_.file->size()) {
    moved = co_await image_.file->resize(compactor.end(), block::Preallocation::kOff, false);
    auto lock = co_await image_.allocation.lock();
    refcounts_.file_was_cut();
  }
  if (moved) moved = co_await image_.file->flush();
  if (!moved) co_return std::unexpected(std::move(moved).error());
  result.bytes_after = image_.file->size();
  co_return result;
}

// The tables in the file were changed beneath the caches, which hold nothing dirty.
io::Task<Result<void>> Qcow2::reload_tables() {
  const auto reload = [](Qcow2& image) -> io::Task<Result<void>> {
    PLATTER_CO_TRY(co_await image.image_.reload_places());
    PLATTER_CO_TRY(co_await image.bitmaps_.reload_places());
    const Header& header = image.image_.header;
    block::Child& file = *image.image_.file;
    PLATTER_CO_ASSIGN(auto table, co_await read_refcount_table(file, header));
    PLATTER_CO_ASSIGN(auto snapshots, co_await read_snapshot_table(file, header));
    io::AlignedBuffer bytes(std::max<uint64_t>(header.l1_bytes(), kTableEntryBytes));
    PLATTER_CO_TRY(co_await read_padded(file, header.l1_table_offset, bytes.view()));
    std::vector<uint64_t> l1(header.l1_entries);
    for (size_t i = 0; i < l1.size(); ++i)
      l1[i] = base::load_big<uint64_t>(bytes.span(), i * kTableEntryBytes);
    auto lock = co_await image.image_.allocation.lock();
    image.refcounts_.adopt(std::move(table));
    image.mapping_.adopt(l1);
    image.snapshots_ = std::move(snapshots.snapshots);
    image.snapshot_table_bytes_ = snapshots.bytes;
    co_return co_await image.claim_structures();
  };
  {
    std::lock_guard lock(last_mutex_);
    last_.reset();
  }
  auto reloaded = co_await reload(*this);
  if (!reloaded) reloaded = co_await reload(*this);  // once more: it may have been a passing error
  // What memory has names clusters that may be others' now.
  if (!reloaded) image_.corrupt.store(true);
  co_return reloaded;
}

}  // namespace platter::format::qcow2
