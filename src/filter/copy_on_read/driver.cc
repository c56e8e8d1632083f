#include <algorithm>
#include <cerrno>

#include "base/math.h"
#include "base/try.h"
#include "block/filter_driver.h"
#include "filter/copy_on_read/driver_type.h"
#include "io/sync.h"

namespace platter::filter {

namespace {

using namespace block;

// Copied in one go, at most.
constexpr uint64_t kMaxCopyBytes = uint64_t{2} << 20;
constexpr uint64_t kSectorBytes = 512;

class CopyOnReadDriver final : public FilterDriver {
 public:
  CopyOnReadDriver(Child& file, uint64_t cluster_size)
      : FilterDriver(file), cluster_size_(cluster_size) {}

  io::Task<Result<void>> read(uint64_t offset, io::BufferList buffers) override {
    const uint64_t end = std::min(offset + buffers.size(), size());
    for (uint64_t at = offset; at < end;) {
      PLATTER_CO_ASSIGN(const BlockStatus status,
                        co_await child_.status(at, end - at, StatusDetail::kFast));
      if (is_below(status)) PLATTER_CO_TRY(co_await copy(at, at + status.length));
      at += status.length;
    }
    co_return co_await child_.read(offset, buffers);
  }
  io::Task<Result<void>> write(uint64_t offset, io::BufferList buffers, WriteFlags flags) override {
    auto turn = co_await copying_.lock_shared();
    co_return co_await child_.write(offset, buffers, flags);
  }
  io::Task<Result<void>> zero(uint64_t offset, uint64_t length, WriteFlags flags) override {
    auto turn = co_await copying_.lock_shared();
    co_return co_await child_.zero(offset, length, flags);
  }
  io::Task<Result<void>> discard(uint64_t offset, uint64_t length) override {
    auto turn = co_await copying_.lock_shared();
    co_return co_await child_.discard(offset, length);
  }
  io::Task<Result<void>> zone_manage(ZoneAction action, uint64_t offset, uint64_t length) override {
    auto turn = co_await copying_.lock_shared();
    co_return co_await child_.zone_manage(action, offset, length);
  }
  io::Task<Result<uint64_t>> zone_append(uint64_t offset, io::BufferList buffers,
                                         WriteFlags flags) override {
    auto turn = co_await copying_.lock_shared();
    co_return co_await child_.zone_append(offset, buffers, flags);
  }
  // Reading writes, though nobody sees a difference.
  ChildPermissions child_permissions(const Child& child, Permissions needed,
                                     Permissions shared) const override {
    ChildPermissions wish = Driver::child_permissions(child, needed, shared);
    if (!child.node().read_only()) wish.needed |= Permission::kWriteUnchanged;
    return wish;
  }

 private:
  // Whether the bytes come from a backing file.
  static bool is_below(const BlockStatus& status) { return !status.allocated && !status.zero; }

  // Copies what is still to be had only below from [begin, end) and the rest of its clusters. No
  // write falls in between: what was read may be stale the moment one does.
  io::Task<Result<void>> copy(uint64_t begin, uint64_t end) {
    begin = base::align_down(begin, cluster_size_);
    end = std::min(base::align_up(end, cluster_size_), size());
    const uint64_t step = std::max(kMaxCopyBytes, cluster_size_);
    io::AlignedBuffer buffer(std::min(step, end - begin));
    auto turn = co_await copying_.lock();
    while (begin < end) {
      PLATTER_CO_ASSIGN(
          const BlockStatus status,
          co_await child_.status(begin, std::min(step, end - begin), StatusDetail::kFast));
      if (is_below(status)) {
        const io::BufferList part = buffer.view(0, status.length);
        PLATTER_CO_TRY(co_await child_.read(begin, part));
        PLATTER_CO_TRY(co_await child_.write(begin, part, WriteFlag::kWriteUnchanged));
      }
      begin += status.length;
    }
    co_return Result<void>();
  }

  const uint64_t cluster_size_;
  io::AsyncSharedMutex copying_;  // exclusive: a copy is made
};

io::Task<Result<std::unique_ptr<Driver>>> open_copy_on_read(OpenContext& context) {
  PLATTER_CO_ASSIGN(Child * file, co_await context.open_child(
                                      "file", ChildRole::kFiltered | ChildRole::kPrimary));
  PLATTER_CO_ASSIGN(const DriverInfo info, file->node().driver().info());
  co_return std::make_unique<CopyOnReadDriver>(*file, std::max(info.cluster_size, kSectorBytes));
}

}  // namespace

const DriverType kCopyOnRead = {
    .name = "copy-on-read",
    .kind = DriverKind::kFilter,
    .runtime_options = base::OptionSchema({}),
    .create_options = base::OptionSchema({}),
    .open = open_copy_on_read,
};

}  // namespace platter::filter
