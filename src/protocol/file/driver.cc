#include "protocol/file/driver.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/math.h"
#include "base/try.h"
#include "block/node.h"
#include "io/reactor.h"
#include "protocol/file/preallocate.h"

namespace platter::protocol {

using namespace block;

static uint32_t alignment_for(io::File& file, const io::FileInfo& info, bool direct) {
  const bool by_block = info.kind == io::FileKind::kBlockDevice && direct;
  return std::max({file.io_alignment(), by_block ? info.logical_block_size : 1U, 1U});
}

FileDriver::FileDriver(std::unique_ptr<io::File> file, const io::FileInfo& info, Setup setup)
    : current_(file.get()),
      setup_(std::move(setup)),
      kind_(info.kind),
      alignment_(alignment_for(*file, info, setup_.direct)),
      size_(info.size),
      writable_(setup_.writable) {
  if (setup_.locking) locks_.emplace(*file, setup_.path);
  files_.push_back(std::move(file));
}

Limits FileDriver::limits() const {
  Limits limits;
  limits.request_alignment = limits.memory_alignment = alignment_;
  limits.supports_fua = true;
  limits.supports_unmap_zero = punches_.load(std::memory_order_relaxed);
  limits.supports_fast_zero = zeroes_.load(std::memory_order_relaxed);
  limits.extends_on_write = kind_ == io::FileKind::kRegular;
  return limits;
}

io::Task<Result<void>> FileDriver::read(uint64_t offset, io::BufferList buffers) {
  return io::read_full(file(), offset, buffers, setup_.mode);
}

io::Task<Result<void>> FileDriver::write(uint64_t offset, io::BufferList buffers,
                                         WriteFlags flags) {
  const bool durable = flags.has(WriteFlag::kFua);
  if (offset + buffers.size() <= size()) [[likely]] {
    return io::write_full(file(), offset, buffers, setup_.mode, durable);
  }
  return write_growing(offset, buffers, durable);
}

io::Task<Result<void>> FileDriver::write_growing(uint64_t offset, io::BufferList buffers,
                                                 bool durable) {
  PLATTER_CO_TRY(co_await io::write_full(file(), offset, buffers, setup_.mode, durable));
  grown_to(offset + buffers.size());
  co_return Result<void>();
}

void FileDriver::grown_to(uint64_t end) {
  uint64_t size = size_.load(std::memory_order_relaxed);
  while (size < end && !size_.compare_exchange_weak(size, end, std::memory_order_acq_rel)) {
  }
}

io::Task<Result<void>> FileDriver::flush() {
  // The kernel reports a failed write-back once, and may have dropped the pages: from then on
  // nothing can be promised about what was written through the page cache.
  if (sync_failed_.load(std::memory_order_relaxed)) co_return fail_errno(EIO);
  Result<void> synced = co_await io::sync(file(), setup_.mode);
  if (!synced && !setup_.direct) sync_failed_.store(true, std::memory_order_relaxed);
  co_return std::move(synced);
}

// ---- Zeroing

// Grows the file up to `end` by writing the last block of the growth, which no one else has reason
// to touch: to set a length could cut off what another request has written meanwhile.
io::Task<Result<void>> FileDriver::grow_with_zeroes(uint64_t end) {
  io::AlignedBuffer last(alignment_);
  last.view().fill_zero();
  co_return co_await write_growing(end - alignment_, last.view(), false);
}

io::Task<Result<void>> FileDriver::zero(uint64_t offset, uint64_t length, WriteFlags flags) {
  const uint64_t end = offset + length;
  const uint64_t old_size = size();
  if (end > old_size) {
    if (kind_ != io::FileKind::kRegular) co_return fail_errno(ENOSPC);
    PLATTER_CO_TRY(co_await grow_with_zeroes(end));
  }
  if (offset < old_size) {
    const uint64_t inside = std::min(end, old_size) - offset;
    PLATTER_CO_TRY(co_await zero_inside(offset, inside, flags.has(WriteFlag::kMayUnmap)));
  }
  if (flags.has(WriteFlag::kFua)) PLATTER_CO_TRY(co_await flush());
  co_return Result<void>();
}

io::Task<Result<void>> FileDriver::zero_inside(uint64_t offset, uint64_t length, bool unmap) {
  forget_extent();
  if (unmap && punches_.load(std::memory_order_relaxed)) {
    const auto how = kind_ == io::FileKind::kRegular ? io::AllocateMode::kPunchHole
                                                     : io::AllocateMode::kZeroRangeUnmap;
    Result<void> punched = co_await io::allocate(file(), how, offset, length, setup_.mode);
    if (punched || punched.error().code() != ENOTSUP) co_return std::move(punched);
    punches_.store(false, std::memory_order_relaxed);
  }
  if (!zeroes_.load(std::memory_order_relaxed)) co_return fail_errno(ENOTSUP);
  Result<void> zeroed =
      co_await io::allocate(file(), io::AllocateMode::kZeroRange, offset, length, setup_.mode);
  if (!zeroed && zeroed.error().code() == ENOTSUP) zeroes_.store(false, std::memory_order_relaxed);
  co_return std::move(zeroed);
}

io::Task<Result<void>> FileDriver::discard(uint64_t offset, uint64_t length) {
  Result<void> punched = fail_errno(ENOTSUP);
  if (punches_.load(std::memory_order_relaxed)) {
    forget_extent();
    punched =
        co_await io::allocate(file(), io::AllocateMode::kPunchHole, offset, length, setup_.mode);
    if (!punched && punched.error().code() == ENOTSUP)
      punches_.store(false, std::memory_order_relaxed);
  }
  if (punched) {
    discards_.fetch_add(1, std::memory_order_relaxed);
    discarded_bytes_.fetch_add(length, std::memory_order_relaxed);
  } else {
    failed_discards_.fetch_add(1, std::memory_order_relaxed);
  }
  co_return std::move(punched);
}

base::Json FileDriver::statistics() const {
  base::Json counted = base::Json::object();
  counted.add("discard-nb-ok", discards_.load(std::memory_order_relaxed));
  counted.add("discard-nb-failed", failed_discards_.load(std::memory_order_relaxed));
  counted.add("discard-bytes-ok", discarded_bytes_.load(std::memory_order_relaxed));
  return counted;
}

// ---- Status

void FileDriver::forget_extent() {
  std::lock_guard guard(extent_mutex_);
  data_extent_ = {};
}

io::Task<Result<BlockStatus>> FileDriver::status(uint64_t offset, uint64_t length,
                                                 StatusDetail detail) {
  BlockStatus status;
  status.length = length;
  status.data = true;
  if (detail != StatusDetail::kFast) {
    auto found = find_extent(offset, length, detail);
    if (!found) return io::Task<Result<BlockStatus>>::ready(std::move(found));
    status = *found;
  }
  status.allocated = status.has_host_offset = true;
  status.host_offset = offset;
  status.host = setup_.node;
  return io::Task<Result<BlockStatus>>::ready(status);
}

Result<BlockStatus> FileDriver::find_extent(uint64_t offset, uint64_t length, StatusDetail detail) {
  BlockStatus status;
  status.length = length;
  {
    std::lock_guard guard(extent_mutex_);
    if (data_extent_.begin <= offset && offset < data_extent_.end) {
      status.data = true;
      status.length = std::min(length, data_extent_.end - offset);
      return status;
    }
  }
  auto data = file().seek_data(offset);
  if (!data && data.error().code() == ENOTSUP) {
    status.data = true;
    return status;
  }
  if (!data) return std::unexpected(std::move(data).error());
  if (!*data || **data > offset) {
    status.zero = true;
    if (*data) status.length = std::min(length, **data - offset);
    return status;
  }
  status.data = true;
  if (detail == StatusDetail::kHoles) return status;
  PLATTER_ASSIGN(std::optional<uint64_t> hole, file().seek_hole(offset));
  // A file that was cut meanwhile has no hole behind its data.
  const uint64_t end = hole && *hole > offset ? *hole : offset + length;
  status.length = std::min(length, end - offset);
  std::lock_guard guard(extent_mutex_);
  data_extent_ = {offset, end};
  return status;
}

io::Task<Result<uint64_t>> FileDriver::allocated_size() {
  auto info = file().info();
  if (!info) co_return std::unexpected(std::move(info).error());
  co_return info->allocated;
}

// ---- Permissions

Result<void> FileDriver::open_anew(bool writable, bool direct) {
  PLATTER_ASSIGN(std::unique_ptr<io::File> file,
                 setup_.files->open(setup_.path, {.write = writable, .direct = direct}));
  // Requests may be under way on the old one: it stays open until the node goes.
  current_.store(file.get(), std::memory_order_release);
  files_.push_back(std::move(file));
  writable_ = writable;
  return {};
}

Result<void> FileDriver::set_permissions(Permissions needed, Permissions shared) {
  has_writer_ = needed.has(Permission::kWrite);
  if (has_writer_ && !writable_ && setup_.may_reopen) {
    Result<void> opened = open_for_writing();
    if (!opened) {
      opened.error().add_context(fmt::format("Could not open '{}' for writing", setup_.path));
      return opened;
    }
  }
  if (!locks_) return {};
  return locks_->set(needed, shared);
}

// ---- Reopening

// Who may only read goes on with a file that could be written to: nobody asks it to.
io::Task<Result<void>> FileDriver::reopen(base::OptionSet options, OpenFlags flags) {
  if (options.get_string("aio") == "native" && !flags.direct) {
    co_return fail(EINVAL,
                   "aio=native was specified, but it requires cache.direct=on, which was not "
                   "specified.");
  }
  const bool writes = !flags.read_only && (!flags.auto_read_only || has_writer_);
  if (flags.direct != setup_.direct || (writes && !writable_)) {
    const bool writable = writable_ || writes;
    const bool direct = flags.direct;
    Result<void> opened = co_await io::Reactor::current()->call(
        [this, writable, direct] { return open_anew(writable, direct); });
    if (!opened) {
      opened.error().add_context(fmt::format("Could not reopen file '{}'", setup_.path));
      co_return std::move(opened);
    }
    PLATTER_CO_ASSIGN(const io::FileInfo info, file().info());
    setup_.direct = direct;
    alignment_ = alignment_for(file(), info, direct);
  }
  setup_.may_reopen = !flags.read_only && flags.auto_read_only;
  co_return Result<void>();
}

// ---- Size

io::Task<Result<void>> FileDriver::resize(uint64_t size, Preallocation preallocation, bool exact) {
  forget_extent();
  if (kind_ != io::FileKind::kRegular) {
    if (preallocation != Preallocation::kOff) {
      co_return fail(ENOTSUP, "Preallocation mode is not supported for this image");
    }
    if (size > this->size()) co_return fail(EINVAL, "Cannot grow device files");
    if (exact && size != this->size()) co_return fail(ENOTSUP, "Cannot resize device files");
    co_return Result<void>();
  }
  const uint64_t old_size = this->size();
  Result<void> resized =
      co_await resize_regular_file(file(), old_size, size, preallocation, setup_.mode);
  if (resized) size_.store(size, std::memory_order_release);
  co_return std::move(resized);
}

}  // namespace platter::protocol
