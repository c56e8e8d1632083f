// memory: a disk that lives as long as its node does. For tests and benchmarks: no system call
// hides the cost, or the races, of what lies above.

#include <fmt/format.h>

#include "base/math.h"
#include "base/try.h"
#include "block/driver.h"
#include "protocol/memory/driver_type.h"
#include "protocol/memory/page_table.h"

namespace platter::protocol {

namespace {

using base::OptionType;
using namespace block;

io::Task<Result<void>> done() { return io::Task<Result<void>>::ready(Result<void>()); }

class MemoryDriver final : public Driver, public Resizable, public Reopenable {
 public:
  MemoryDriver(uint64_t size, uint32_t alignment, Node& node)
      : size_(size), alignment_(alignment), node_(node) {}

  uint64_t size() const override { return size_.load(std::memory_order_acquire); }
  Limits limits() const override {
    Limits limits;
    limits.request_alignment = limits.memory_alignment = alignment_;
    limits.supports_fua = limits.supports_unmap_zero = limits.supports_fast_zero = true;
    limits.extends_on_write = true;
    return limits;
  }

  io::Task<Result<void>> read(uint64_t offset, io::BufferList buffers) override {
    buffers.for_each([this, &offset](std::span<uint8_t> piece) {
      pages_.read(offset, piece);
      offset += piece.size();
    });
    return done();
  }
  io::Task<Result<void>> write(uint64_t offset, io::BufferList buffers, WriteFlags) override {
    const uint64_t end = offset + buffers.size();
    if (end > PageTable::kCapacity) return io::Task<Result<void>>::ready(fail_errno(ENOSPC));
    buffers.for_each([this, &offset](std::span<uint8_t> piece) {
      pages_.write(offset, piece);
      offset += piece.size();
    });
    grow(end);
    return done();
  }
  io::Task<Result<void>> zero(uint64_t offset, uint64_t length, WriteFlags) override {
    if (offset + length > PageTable::kCapacity) {
      return io::Task<Result<void>>::ready(fail_errno(ENOSPC));
    }
    pages_.zero(offset, length);
    grow(offset + length);
    return done();
  }
  io::Task<Result<void>> discard(uint64_t offset, uint64_t length) override {
    pages_.zero(offset, length);
    return done();
  }
  io::Task<Result<BlockStatus>> status(uint64_t offset, uint64_t length, StatusDetail) override {
    BlockStatus status;
    bool stored;
    status.length = pages_.run(offset, length, stored);
    status.data = stored;
    status.zero = !stored;
    status.allocated = status.has_host_offset = true;
    status.host_offset = offset;
    status.host = &node_;
    return io::Task<Result<BlockStatus>>::ready(status);
  }
  io::Task<Result<uint64_t>> allocated_size() override {
    return io::Task<Result<uint64_t>>::ready(pages_.stored_bytes());
  }
  bool zero_initialised() const override { return true; }
  Resizable* resizable() override { return this; }
  Reopenable* reopenable() override { return this; }
  io::Task<Result<void>> reopen(base::OptionSet, OpenFlags) override {
    return io::Task<Result<void>>::ready(Result<void>());
  }

  io::Task<Result<void>> resize(uint64_t size, Preallocation, bool) override {
    if (size > PageTable::kCapacity) return io::Task<Result<void>>::ready(fail_errno(EFBIG));
    const uint64_t old = this->size();
    if (size < old) pages_.zero(size, old - size);
    size_.store(size, std::memory_order_release);
    return done();
  }

 private:
  void grow(uint64_t end) {
    uint64_t size = size_.load(std::memory_order_relaxed);
    while (size < end && !size_.compare_exchange_weak(size, end, std::memory_order_acq_rel)) {
    }
  }

  PageTable pages_;
  std::atomic<uint64_t> size_;
  uint32_t alignment_;
  Node& node_;
};

io::Task<Result<std::unique_ptr<Driver>>> open_memory(OpenContext& context) {
  const base::OptionSet& options = context.options();
  const uint64_t alignment = options.get_size("request-alignment");
  if (!base::is_power_of_two(alignment)) {
    co_return fail(EINVAL, "The 'memory' driver's request-alignment must be a power of two");
  }
  co_return std::make_unique<MemoryDriver>(options.get_size("size"),
                                           static_cast<uint32_t>(alignment), context.node());
}

Result<base::Options> parse_memory_filename(std::string_view filename) {
  if (filename != "memory://") {
    return fail(EINVAL, "The only allowed filename for this driver is 'memory://'");
  }
  return base::Options();
}

constexpr base::OptionDef kOptions[] = {
    {.name = "size",
     .type = OptionType::kSize,
     .help = "size of the disk",
     .default_value = "0",
     .max = PageTable::kCapacity},
    {.name = "request-alignment",
     .type = OptionType::kSize,
     .help = "alignment that requests must have (a power of two)",
     .default_value = "1",
     .min = 1,
     .max = 65536},
};
constexpr std::string_view kIdentity[] = {"size"};

}  // namespace

const DriverType kMemory = {
    .name = "memory",
    .kind = DriverKind::kProtocol,
    .runtime_options = base::OptionSchema(kOptions),
    .create_options = base::OptionSchema({}),
    .filename_prefix = "memory",
    .parse_filename = parse_memory_filename,
    .identity_options = kIdentity,
    .open = open_memory,
};

}  // namespace platter::protocol
