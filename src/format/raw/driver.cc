// raw: the bytes of the file beneath, all of them or the window that `offset` and `size` cut out.

#include <algorithm>
#include <atomic>

#include <fmt/format.h>

#include "base/math.h"
#include "base/try.h"
#include "block/backend.h"
#include "block/child_zones.h"
#include "block/driver.h"
#include "block/graph.h"
#include "block/node.h"
#include "block/registry.h"
#include "format/raw/driver_type.h"

namespace platter::format {

namespace {

using base::OptionType;
using namespace block;

constexpr uint64_t kSectorBytes = 512;

io::Task<Result<void>> ready(Result<void> result) {
  return io::Task<Result<void>>::ready(std::move(result));
}

Result<void> check_window(uint64_t below, uint64_t offset, std::optional<uint64_t> size);
// Whoever uses a window does not see the zones below it.
Result<void> check_zones(const Node& below, bool read_only) {
  return read_only ? Result<void>() : below.check_written_anywhere("a window");
}

class RawDriver final : public Driver, public Resizable, public Reopenable, public ChildZones {
 public:
  RawDriver(Child& file, Node& node, uint64_t offset, std::optional<uint64_t> size)
      : ChildZones(file),
        file_(file),
        node_(node),
        offset_(offset),
        fixed_size_(size),
        guarded_(node.probed() && !node.read_only()) {}

  uint64_t size() const override {
    if (fixed_size_) return *fixed_size_;
    const uint64_t below = file_.size();
    // Sizes are whole sectors; what the file lacks of its last one reads as zeroes.
    return base::align_up(below > offset_ ? below - offset_ : 0, kSectorBytes);
  }
  Limits limits() const override {
    const Limits& below = file_.node().limits();
    Limits limits;
    limits.memory_alignment = below.memory_alignment;
    limits.max_transfer = below.max_transfer;
    limits.optimal_transfer = below.optimal_transfer;
    if (offset_ == 0) {
      limits.discard_alignment = below.discard_alignment;
      limits.zero_alignment = below.zero_alignment;
    }
    limits.max_discard = below.max_discard;
    limits.max_zero = below.max_zero;
    limits.supports_fua = true;  // handed down
    limits.supports_unmap_zero = below.supports_unmap_zero;
    limits.supports_fast_zero = below.supports_fast_zero;
    limits.variable_length = below.variable_length && !fixed_size_;
    limits.extends_on_write = below.extends_on_write && !fixed_size_;
    return limits;
  }

  io::Task<Result<void>> read(uint64_t offset, io::BufferList buffers) override {
    if (file_.has_debug_points()) [[unlikely]]
      return read_at_point(offset, buffers);
    return file_.read(offset_ + offset, buffers);
  }
  io::Task<Result<void>> write(uint64_t offset, io::BufferList buffers, WriteFlags flags) override {
    if ((guarded_ && offset < kSectorBytes) || file_.has_debug_points()) [[unlikely]]
      return write_slow(offset, buffers, flags);
    return file_.write(offset_ + offset, buffers, flags);
  }
  io::Task<Result<void>> zero(uint64_t offset, uint64_t length, WriteFlags flags) override {
    return file_.zero(offset_ + offset, length, flags);
  }
  io::Task<Result<void>> discard(uint64_t offset, uint64_t length) override {
    const uint64_t below = file_.size();
    offset += offset_;
    if (offset >= below) return ready({});
    return file_.discard(offset, std::min(length, below - offset));
  }
  io::Task<Result<void>> flush() override { return file_.flush(); }
  io::Task<Result<BlockStatus>> status(uint64_t offset, uint64_t length,
                                       StatusDetail detail) override {
    return file_.status(offset_ + offset, length, detail);
  }
  io::Task<Result<uint64_t>> allocated_size() override {
    return file_.node().driver().allocated_size();
  }
  bool zero_initialised() const override { return file_.node().driver().zero_initialised(); }
  Resizable* resizable() override { return this; }
  Reopenable* reopenable() override { return this; }
  // Limits are asked for anew afterwards.
  io::Task<Result<void>> reopen(base::OptionSet options, OpenFlags flags) override {
    const uint64_t offset = options.get_size("offset");
    std::optional<uint64_t> size;
    if (options.given("size")) size = options.get_size("size");
    const bool window = offset != 0 || size;
    if (window) {
      if (auto fits = check_zones(file_.node(), flags.read_only); !fits)
        return ready(std::move(fits));
    }
    if (offset == offset_ && size == fixed_size_) return ready({});
    if (window) {
      if (auto fits = check_window(file_.size(), offset, size); !fits)
        return ready(std::move(fits));
    }
    offset_ = offset;
    fixed_size_ = size;
    return ready({});
  }

  io::Task<Result<void>> resize(uint64_t size, Preallocation preallocation, bool exact) override {
    if (fixed_size_) return ready(fail(ENOTSUP, "Cannot resize fixed-size raw disks"));
    if (!base::range_within(offset_, size, kMaxLength)) {
      return ready(fail(EINVAL, "Disk size too large for the chosen offset"));
    }
    return file_.resize(offset_ + size, preallocation, exact);
  }

  // Zones that a window cuts are none.
  Zoned* zoned() override {
    const bool whole = offset_ == 0 && !fixed_size_;
    return whole && file_.node().driver().zoned() != nullptr ? this : nullptr;
  }
  io::Task<Result<uint64_t>> zone_append(uint64_t offset, io::BufferList buffers,
                                         WriteFlags flags) override {
    // It may come to lie at the zone's start.
    if (guarded_ && offset < kSectorBytes) PLATTER_CO_TRY(co_await check_header(offset, buffers));
    co_await file_.pass(DebugEvent::kWriteAio);
    co_return co_await file_.zone_append(offset, buffers, flags);
  }

 private:
  io::Task<Result<void>> read_at_point(uint64_t offset, io::BufferList buffers) {
    co_await file_.pass(DebugEvent::kReadAio);
    co_return co_await file_.read(offset_ + offset, buffers);
  }
  io::Task<Result<void>> write_slow(uint64_t offset, io::BufferList buffers, WriteFlags flags) {
    if (guarded_ && offset < kSectorBytes) PLATTER_CO_TRY(co_await check_header(offset, buffers));
    co_await file_.pass(DebugEvent::kWriteAio);
    co_return co_await file_.write(offset_ + offset, buffers, flags);
  }
  // The format of this image was guessed. Were its first sector to become another format's header,
  // the next guess would hand the file over to whoever wrote it.
  io::Task<Result<void>> check_header(uint64_t offset, io::BufferList buffers) {
    uint8_t head[kProbeBytes] = {};
    const size_t head_size = std::min<uint64_t>(size(), sizeof head);
    const size_t covered = std::min<size_t>(buffers.size(), head_size - offset);
    PLATTER_CO_TRY(co_await file_.read(offset_, io::BufferList(head, head_size)));
    buffers.sub(0, covered).copy_to(std::span(head).subspan(offset, covered));
    const DriverRegistry& registry = node_.graph().environment().registry;
    const DriverType& found = registry.probe(std::span(head).first(head_size), node_.filename());
    if (&found != &node_.type()) {
      co_return fail(EPERM, fmt::format("The first sector of '{}' may not become a {} header: its "
                                        "format was probed as raw; name it to lift this",
                                        node_.filename(), found.name));
    }
    co_return Result<void>();
  }

  Child& file_;
  Node& node_;
  // The window; it changes with no request in flight.
  uint64_t offset_;
  std::optional<uint64_t> fixed_size_;
  bool guarded_;
};

Result<void> check_window(uint64_t below, uint64_t offset, std::optional<uint64_t> size) {
  if (offset > below) {
    return fail(EINVAL, fmt::format("Offset ({}) cannot be greater than size of the containing "
                                    "file ({})",
                                    offset, below));
  }
  if (size && *size > below - offset) {
    return fail(EINVAL,
                fmt::format("The sum of offset ({}) and size ({}) has to be smaller or equal "
                            "to the  actual size of the containing file ({})",
                            offset, *size, below));
  }
  if (size && !base::is_aligned(*size, kSectorBytes)) {
    return fail(EINVAL, fmt::format("Specified size is not multiple of {}", kSectorBytes));
  }
  return {};
}

io::Task<Result<std::unique_ptr<Driver>>> open_raw(OpenContext& context) {
  const base::OptionSet& options = context.options();
  const uint64_t offset = options.get_size("offset");
  std::optional<uint64_t> size;
  if (options.given("size")) size = options.get_size("size");
  const bool window = offset != 0 || size.has_value();
  PLATTER_CO_ASSIGN(Child * file, co_await context.open_child(
                                      "file", (window ? ChildRole::kData : ChildRole::kFiltered) |
                                                  ChildRole::kPrimary));
  if (window) {
    PLATTER_CO_TRY(check_zones(file->node(), context.flags().read_only));
    PLATTER_CO_TRY(check_window(file->size(), offset, size));
  }
  Node& node = context.node();
  if (node.probed() && !node.read_only()) {
    node.graph().environment().log.warning(fmt::format(
        "Image format was not specified for '{}' and probing guessed raw.\n"
        "         Automatically detecting the format is dangerous for raw images, write operations "
        "on block 0 will be restricted.\n"
        "         Specify the 'raw' format explicitly to remove the restrictions.",
        file->node().filename()));
  }
  co_return std::make_unique<RawDriver>(*file, node, offset, size);
}

io::Task<Result<void>> create_raw(CreateContext& context) {
  base::Options options = context.protocol_options;
  options.set("size", base::align_up(context.options.get_size("size"), kSectorBytes));
  CreateContext file{context.graph, context.filename, context.options, options};
  auto backend = co_await file.create_file();
  context.begun = file.begun;
  if (!backend) co_return std::unexpected(std::move(backend).error());
  co_return co_await (*backend)->close();
}

io::Task<Result<Measurement>> measure_raw(const MeasureContext& context) {
  const uint64_t size = base::align_up(context.options.get_size("size"), kSectorBytes);
  co_return Measurement{.required = size, .fully_allocated = size};
}

constexpr base::OptionDef kRuntimeOptions[] = {
    {.name = "offset",
     .type = OptionType::kSize,
     .help = "offset in the disk where the image starts",
     .default_value = "0",
     .max = kMaxLength,
     .changeable = true},
    {.name = "size",
     .type = OptionType::kSize,
     .help = "virtual disk size",
     .max = kMaxLength,
     .changeable = true},
};
constexpr base::OptionDef kCreateOptions[] = {
    {.name = "size",
     .type = OptionType::kSize,
     .help = "Virtual disk size",
     .default_value = "0",
     .max = kMaxLength},
};
constexpr std::string_view kIdentity[] = {"offset", "size"};

}  // namespace

const DriverType kRaw = {
    .name = "raw",
    .kind = DriverKind::kFormat,
    .runtime_options = base::OptionSchema(kRuntimeOptions),
    .create_options = base::OptionSchema(kCreateOptions),
    .identity_options = kIdentity,
    .open = open_raw,
    .create = create_raw,
    .measure = measure_raw,
};

}  // namespace platter::format
