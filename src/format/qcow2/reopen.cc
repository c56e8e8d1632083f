// Options that change while the image is open.

#include <fmt/format.h>

#include "base/try.h"
#include "format/qcow2/driver.h"

namespace platter::format::qcow2 {
namespace {

// What is decided when the image is opened: by which key it is read.
constexpr const char* kFixedNames[] = {"encrypt.key-secret"};

}  // namespace

Result<void> Qcow2::check_reopen(const base::OptionSet& options) const {
  for (const char* name : kFixedNames) {
    if (options.has(name) == told_.has(name) &&
        (!options.has(name) || options.get_string(name) == told_.get_string(name)))
      continue;
    return fail(ENOTSUP, fmt::format("Cannot change the option '{}'", name));
  }
  return {};
}

io::Task<Result<void>> Qcow2::reopen(base::OptionSet options, block::OpenFlags flags) {
  PLATTER_CO_TRY(check_reopen(options));
  PLATTER_CO_ASSIGN(const CacheSizes caches, read_cache_sizes(options, image_.header));
  PLATTER_CO_ASSIGN(const OpenOptions next, read_open_options(options, image_.header, flags.unmap));
  const CacheSizes caches_before = caches_;
  PLATTER_CO_TRY(co_await change_caches(caches));
  Result<void> changed;
  if (image_.writable && flags.read_only) changed = co_await end_writing();
  const OpenOptions before = std::exchange(options_, next);
  if (changed && !flags.read_only && !no_io_)
    changed = image_.writable ? co_await change_write_options() : co_await become_writable();
  if (!changed) {
    options_ = before;
    if (Result<void> back = co_await change_caches(caches_before); !back)
      image_.log->warning("qcow2: " + back.error().message());
    co_return changed;
  }
  told_ = std::move(options);
  if (next.cache_clean_interval != before.cache_clean_interval) co_await stop_cleaner();
  start_cleaner();
  co_return changed;
}

// ---- Caches

void Qcow2::start_cleaner() {
  if (no_io_ || cleaner_ != nullptr) return;
  cleaner_ = std::make_unique<CacheCleaner>(mapping_.cache(), refcounts_.cache());
  cleaner_->start(options_.cache_clean_interval);
}

io::Task<void> Qcow2::stop_cleaner() {
  if (cleaner_ == nullptr) co_return;
  co_await cleaner_->stop();
  cleaner_.reset();
}

io::Task<Result<void>> Qcow2::change_caches(CacheSizes sizes) {
  if (sizes == caches_) co_return Result<void>{};
  auto whole = co_await reclaim_turn_.lock();
  auto turn = co_await maintenance_.lock();
  if (image_.writable) {
    if (!image_.corrupt) PLATTER_CO_TRY(co_await settle());
    if (!writeback_.is_settled()) co_return std::unexpected(image_.corrupt_error());
  }
  co_await stop_cleaner();
  auto lock = co_await image_.allocation.lock();
  const CacheSizes before = std::exchange(caches_, sizes);
  Result<void> renewed = co_await renew_caches(sizes);
  if (!renewed) {
    caches_ = before;
    if (Result<void> back = co_await renew_caches(before); !back) {
      image_.log->warning("qcow2: What is not on disk goes with this process from here on: " +
                          back.error().message());
    }
  }
  start_cleaner();
  co_return renewed;
}

// Nothing is dirty, so that a state file may go and another one take its place.
io::Task<Result<void>> Qcow2::renew_caches(CacheSizes sizes) {
  refcounts_.renew_cache(refcount_cache(sizes));
  mapping_.renew_cache(l2_cache(sizes, image_.geometry, size()));
  if (state_ != nullptr) state_->end();
  state_.reset();
  // Who becomes writable later makes one then.
  if (!image_.writable) co_return Result<void>{};
  PLATTER_CO_TRY(co_await use_state_file());
  refcounts_.tell_state_file();
  mapping_.tell_state_file();
  co_return Result<void>{};
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
