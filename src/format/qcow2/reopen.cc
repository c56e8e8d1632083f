// Options that change while the image is open.

#include <fmt/format.h>

#include "base/try.h"
#include "format/qcow2/driver.h"

namespace platter::format::qcow2 {
namespace {

// What is decided when the image is opened: how large its caches are, and by which key it is read.
constexpr const char* kFixedSizes[] = {"cache-size", "l2-cache-size", "l2-cache-entry-size",
                                       "refcount-cache-size", "cache-clean-interval"};
constexpr const char* kFixedNames[] = {"encrypt.key-secret"};

}  // namespace

Result<void> Qcow2::check_reopen(const base::OptionSet& options) const {
  const auto refuse = [](const char* name) {
    return fail(ENOTSUP, fmt::format("Cannot change the option '{}'", name));
  };
  for (const char* name : kFixedSizes) {
    if (options.has(name) != told_.has(name)) return refuse(name);
    if (options.has(name) && options.get_size(name) != told_.get_size(name)) return refuse(name);
  }
  for (const char* name : kFixedNames) {
    if (options.has(name) != told_.has(name)) return refuse(name);
    if (options.has(name) && options.get_string(name) != told_.get_string(name))
      return refuse(name);
  }
  return {};
}

io::Task<Result<void>> Qcow2::reopen(base::OptionSet options, block::OpenFlags flags) {
  PLATTER_CO_TRY(check_reopen(options));
  PLATTER_CO_ASSIGN(const OpenOptions next, read_open_options(options, image_.header, flags.unmap));
  if (image_.writable && flags.read_only) PLATTER_CO_TRY(co_await end_writing());
  const OpenOptions before = std::exchange(options_, next);
  Result<void> changed;
  if (!flags.read_only && !no_io_)
    changed = image_.writable ? co_await change_write_options() : co_await become_writable();
  if (changed) {
    told_ = std::move(options);
  } else {
    options_ = before;
  }
  co_return changed;
}

// As at a close: afterwards the file says all there is to say.
io::Task<Result<void>> Qcow2::end_writing() {
  auto whole = co_await reclaim_turn_.lock();
  if (image_.corrupt) {
    if (!writeback_.is_settled() || bitmaps_.needs_storing())
      co_return std::unexpected(image_.corrupt_error());
  } else {
    auto turn = co_await maintenance_.lock();
    PLATTER_CO_TRY(co_await settle());
    write_prepared_ = false;  // until the next write, the bitmaps in the file are to be trusted
    PLATTER_CO_TRY(co_await store_bitmaps());
    PLATTER_CO_TRY(co_await end_file_with_sector());
    PLATTER_CO_TRY(co_await image_.change_incompatible(0, kDirty));
    allocation_prepared_ = false;
    PLATTER_CO_TRY(co_await image_.file->flush());
  }
  bitmaps_.end_writing();
  image_.writable = false;
  co_return Result<void>{};
}

io::Task<Result<void>> Qcow2::become_writable() {
  if (image_.corrupt || image_.header.has(kCorrupt))
    co_return fail(EACCES, "qcow2: Image is corrupt; cannot be opened read/write");
  if (state_ == nullptr && !state_directory_.empty()) {
    mapping_.cache().clear();
    refcounts_.cache().clear();
    PLATTER_CO_TRY(co_await use_state_file());
    PLATTER_CO_TRY(co_await load());
  }
  if (image_.header.has(kDirty)) {
    PLATTER_CO_TRY(co_await repair_dirty());
    PLATTER_CO_TRY(co_await reload_tables());
  }
  Result<void> begun = co_await begin_writing();
  if (begun) {
    image_.guard.watch(options_.overlap_checks);
    begun = co_await claim_structures();
  }
  if (begun) {
    bitmaps_.begin_writing();
  } else {
    image_.writable = false;
  }
  co_return begun;
}

io::Task<Result<void>> Qcow2::change_write_options() {
  auto turn = co_await maintenance_.lock();
  if (options_.lazy_refcounts != lazy_refcounts_) {
    // What is counted late is counted now.
    PLATTER_CO_TRY(co_await settle());
    PLATTER_CO_TRY(co_await image_.change_incompatible(0, kDirty));
  }
  auto lock = co_await image_.allocation.lock();
  if (options_.lazy_refcounts != lazy_refcounts_) {
    lazy_refcounts_ = options_.lazy_refcounts;
    allocation_prepared_ = false;
    writeback_.set_lazy_refcounts(lazy_refcounts_);
  }
  image_.guard.watch(options_.overlap_checks);
  co_return co_await claim_structures();
}

}  // namespace platter::format::qcow2
