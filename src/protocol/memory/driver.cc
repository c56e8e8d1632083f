// memory: a disk that lives as long as its node does. For tests and benchmarks: no system call
// hides the cost, or the races, of what lies above.

#include "protocol/memory/driver.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/math.h"
#include "base/try.h"
#include "protocol/memory/driver_type.h"

namespace platter::protocol {

using base::OptionType;
using namespace block;

static io::Task<Result<void>> done() { return io::Task<Result<void>>::ready(Result<void>()); }

Limits MemoryDriver::limits() const {
  Limits limits;
  limits.request_alignment = limits.memory_alignment = alignment_;
  limits.supports_fua = limits.supports_unmap_zero = limits.supports_fast_zero = true;
  limits.extends_on_write = true;
  return limits;
}

io::Task<Result<void>> MemoryDriver::read(uint64_t offset, io::BufferList buffers) {
  buffers.for_each([this, &offset](std::span<uint8_t> piece) {
    pages_.read(offset, piece);
    offset += piece.size();
  });
  return done();
}

void MemoryDriver::store(uint64_t offset, io::BufferList buffers) {
  buffers.for_each([this, &offset](std::span<uint8_t> piece) {
    pages_.write(offset, piece);
    offset += piece.size();
  });
}

io::Task<Result<void>> MemoryDriver::write(uint64_t offset, io::BufferList buffers, WriteFlags) {
  const uint64_t end = offset + buffers.size();
  if (end > PageTable::kCapacity) return io::Task<Result<void>>::ready(fail_errno(ENOSPC));
  store(offset, buffers);
  grow(end);
  return done();
}

io::Task<Result<void>> MemoryDriver::zero(uint64_t offset, uint64_t length, WriteFlags) {
  if (offset + length > PageTable::kCapacity) {
    return io::Task<Result<void>>::ready(fail_errno(ENOSPC));
  }
  pages_.zero(offset, length);
  grow(offset + length);
  return done();
}

io::Task<Result<void>> MemoryDriver::discard(uint64_t offset, uint64_t length) {
  pages_.zero(offset, length);
  return done();
}

io::Task<Result<BlockStatus>> MemoryDriver::status(uint64_t offset, uint64_t length, StatusDetail) {
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

io::Task<Result<void>> MemoryDriver::resize(uint64_t size, Preallocation, bool) {
  if (size > PageTable::kCapacity) return io::Task<Result<void>>::ready(fail_errno(EFBIG));
  const uint64_t old = this->size();
  if (size < old) pages_.zero(size, old - size);
  size_.store(size, std::memory_order_release);
  return done();
}

void MemoryDriver::grow(uint64_t end) {
  uint64_t size = size_.load(std::memory_order_relaxed);
  while (size < end && !size_.compare_exchange_weak(size, end, std::memory_order_acq_rel)) {
  }
}

// ---- Opening

namespace {

constexpr uint64_t kSectorBytes = 512;
constexpr uint64_t kMaxZoneBytes = uint64_t{1} << 40;
constexpr uint64_t kMaxAppendBytes = uint64_t{1} << 30;
constexpr uint64_t kDefaultAppendBytes = uint64_t{1} << 20;
constexpr std::string_view kZoneOptions[] = {"zone-size",          "zone-capacity",
                                             "conventional-zones", "max-open-zones",
                                             "max-active-zones",   "max-append-bytes"};

// Nothing: the disk is not zoned.
Result<std::optional<ZoneSettings>> read_zones(const base::OptionSet& options, uint64_t size,
                                               uint64_t alignment) {
  const std::string& model = options.get_string("zoned");
  if (model == "off") {
    for (const auto option : kZoneOptions) {
      if (options.given(option))
        return fail(EINVAL, fmt::format("'{}' is for a zoned disk: it goes with 'zoned'", option));
    }
    return std::nullopt;
  }
  ZoneSettings settings;
  ZonedCharacteristics& zones = settings.characteristics;
  const bool managed = model == "host-managed";
  zones.model = managed ? ZoneModel::kHostManaged : ZoneModel::kHostAware;
  zones.zone_size = options.get_size("zone-size");
  zones.max_open = static_cast<uint32_t>(options.get_number("max-open-zones"));
  zones.max_active = static_cast<uint32_t>(options.get_number("max-active-zones"));
  zones.write_granularity = static_cast<uint32_t>(std::max(alignment, kSectorBytes));
  settings.capacity =
      options.has("zone-capacity") ? options.get_size("zone-capacity") : zones.zone_size;
  settings.conventional_zones = static_cast<uint32_t>(options.get_number("conventional-zones"));
  if (options.has("max-append-bytes")) {
    zones.max_append = options.get_size("max-append-bytes");
  } else if (managed) {
    zones.max_append = std::min(kDefaultAppendBytes, settings.capacity);
  }
  PLATTER_TRY(ZoneTable::check(settings, size));
  return settings;
}

io::Task<Result<std::unique_ptr<Driver>>> open_memory(OpenContext& context) {
  const base::OptionSet& options = context.options();
  const uint64_t size = options.get_size("size");
  const uint64_t alignment = options.get_size("request-alignment");
  if (!base::is_power_of_two(alignment)) {
    co_return fail(EINVAL, "The 'memory' driver's request-alignment must be a power of two");
  }
  const auto small_alignment = static_cast<uint32_t>(alignment);
  PLATTER_CO_ASSIGN(const auto zones, read_zones(options, size, alignment));
  if (zones)
    co_return std::make_unique<ZonedMemoryDriver>(size, small_alignment, context.node(), *zones);
  co_return std::make_unique<MemoryDriver>(size, small_alignment, context.node());
}

Result<base::Options> parse_memory_filename(std::string_view filename) {
  if (filename != "memory://") {
    return fail(EINVAL, "The only allowed filename for this driver is 'memory://'");
  }
  return base::Options();
}

constexpr std::string_view kZonedChoices[] = {"off", "host-managed", "host-aware"};
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
    {.name = "zoned",
     .type = OptionType::kString,
     .help = "a zoned disk: off, host-managed or host-aware",
     .default_value = "off",
     .choices = kZonedChoices},
    {.name = "zone-size",
     .type = OptionType::kSize,
     .help = "size of its zones (a power of two)",
     .default_value = "256M",
     .max = kMaxZoneBytes},
    {.name = "zone-capacity",
     .type = OptionType::kSize,
     .help = "how much of a zone can be written (all of it)",
     .max = kMaxZoneBytes},
    {.name = "conventional-zones",
     .type = OptionType::kNumber,
     .help = "how many zones, the first ones, are written in any order",
     .default_value = "0",
     .max = ZoneTable::kMaxZones},
    {.name = "max-open-zones",
     .type = OptionType::kNumber,
     .help = "zones that can be open at a time (0: all)",
     .default_value = "0",
     .max = ZoneTable::kMaxZones},
    {.name = "max-active-zones",
     .type = OptionType::kNumber,
     .help = "zones that can be open or closed at a time (0: all)",
     .default_value = "0",
     .max = ZoneTable::kMaxZones},
    {.name = "max-append-bytes",
     .type = OptionType::kSize,
     .help = "largest zone append (host-managed: 1M; 0: none)",
     .max = kMaxAppendBytes},
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
