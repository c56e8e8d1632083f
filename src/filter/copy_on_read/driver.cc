#include <algorithm>
#include <cerrno>

#include "base/math.h"
#include "base/try.h"
#include "block/node.h"
#include "filter/copy_on_read/driver_type.h"
#include "io/sync.h"

namespace platter::filter {

namespace {

using namespace block;

// Copied in one go, at most.
constexpr uint64_t kMaxCopyBytes = uint64_t{2} << 20;
constexpr uint64_t kSectorBytes = 512;

class CopyOnReadDriver final : public Driver, public Resizable {
 public:
  CopyOnReadDriver(Child& file, uint64_t cluster_size) : file_(file), cluster_size_(cluster_size) {}

  uint64_t size() const override { return file_.size(); }
  Limits limits() const override { return file_.node().limits(); }

  io::Task<Result<void>> read(uint64_t offset, io::BufferList buffers) override {
    const uint64_t end = std::min(offset + buffers.size(), size());
    for (uint64_t at = offset; at < end;) {
      PLATTER_CO_ASSIGN(const BlockStatus status,
                        co_await file_.status(at, end - at, StatusDetail::kFast));
      if (is_below(status)) PLATTER_CO_TRY(co_await copy(at, at + status.length));
      at += status.length;
    }
    co_return co_await file_.read(offset, buffers);
  }
  io::Task<Result<void>> write(uint64_t offset, io::BufferList buffers, WriteFlags flags) override {
    auto turn = co_await copying_.lock_shared();
    co_return co_await file_.write(offset, buffers, flags);
  }
  io::Task<Result<void>> zero(uint64_t offset, uint64_t length, WriteFlags flags) override {
    auto turn = co_await copying_.lock_shared();
    co_return co_await file_.zero(offset, length, flags);
  }
  io::Task<Result<void>> discard(uint64_t offset, uint64_t length) override {
    auto turn = co_await copying_.lock_shared();
    co_return co_await file_.discard(offset, length);
  }
  io::Task<Result<void>> flush() override { return file_.flush(); }
  io::Task<Result<BlockStatus>> status(uint64_t offset, uint64_t length,
                                       StatusDetail detail) override {
    return file_.status(offset, length, detail);
  }
  io::Task<Result<uint64_t>> allocated_size() override {
    return file_.node().driver().allocated_size();
  }
  bool zero_initialised() const override { return file_.node().driver().zero_initialised(); }

  Resizable* resizable() override { return this; }
  io::Task<Result<void>> resize(uint64_t size, Preallocation preallocation, bool exact) override {
    return file_.resize(size, preallocation, exact);
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
          co_await file_.status(begin, std::min(step, end - begin), StatusDetail::kFast));
      if (is_below(status)) {
        const io::BufferList part = buffer.view(0, status.length);
        PLATTER_CO_TRY(co_await file_.read(begin, part));
        PLATTER_CO_TRY(co_await file_.write(begin, part, WriteFlag::kWriteUnchanged));
      }
      begin += status.length;
    }
    co_return Result<void>();
  }

  Child& file_;
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
