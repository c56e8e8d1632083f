#include <fmt/format.h>

#include <bit>
#include <cerrno>

#include "base/math.h"
#include "base/try.h"
#include "block/filter_driver.h"
#include "block/graph.h"
#include "filter/blkdebug/driver_type.h"
#include "filter/blkdebug/rules.h"
#include "io/file_io.h"

namespace platter::filter {

namespace {

using base::OptionType;
using namespace block;
using blkdebug::Operation;
using blkdebug::Rules;
using blkdebug::RuleSet;

constexpr std::string_view kPrefix = "blkdebug:";
constexpr uint64_t kMaxAlignment = uint64_t{1} << 30;
constexpr uint64_t kMaxConfigBytes = uint64_t{1} << 20;

// What the limits of the node are to be, where that is said.
struct WantedLimits {
  uint64_t align = 0;
  uint64_t max_transfer = 0;
  uint64_t opt_write_zero = 0;
  uint64_t max_write_zero = 0;
  uint64_t opt_discard = 0;
  uint64_t max_discard = 0;
};

class BlkdebugDriver final : public FilterDriver, public Reopenable {
 public:
  BlkdebugDriver(Child& image, RuleSet rules, WantedLimits wanted)
      : FilterDriver(image), rules_(std::move(rules)), wanted_(wanted) {}

  Limits limits() const override {
    Limits limits = child_.node().limits();
    limits.request_alignment = std::max(
        limits.request_alignment, static_cast<uint32_t>(std::max<uint64_t>(wanted_.align, 1)));
    if (wanted_.max_transfer != 0)
      limits.max_transfer = static_cast<uint32_t>(wanted_.max_transfer);
    if (wanted_.opt_write_zero != 0) limits.zero_alignment = wanted_.opt_write_zero;
    if (wanted_.max_write_zero != 0) limits.max_zero = wanted_.max_write_zero;
    if (wanted_.opt_discard != 0) limits.discard_alignment = wanted_.opt_discard;
    if (wanted_.max_discard != 0) limits.max_discard = wanted_.max_discard;
    return limits;
  }

  io::Task<Result<void>> read(uint64_t offset, io::BufferList buffers) override {
    if (auto met = meet(Operation::kRead, offset, buffers.size()); !met)
      return ready(std::move(met));
    return child_.read(offset, buffers);
  }
  io::Task<Result<void>> write(uint64_t offset, io::BufferList buffers, WriteFlags flags) override {
    if (auto met = meet(Operation::kWrite, offset, buffers.size()); !met)
      return ready(std::move(met));
    return child_.write(offset, buffers, flags);
  }
  // What is smaller than the granularity that was asked for is not for this operation.
  io::Task<Result<void>> zero(uint64_t offset, uint64_t length, WriteFlags flags) override {
    if (length < wanted_.opt_write_zero) return ready(fail_errno(ENOTSUP));
    if (auto met = meet(Operation::kWriteZeroes, offset, length); !met)
      return ready(std::move(met));
    return child_.zero(offset, length, flags);
  }
  io::Task<Result<void>> discard(uint64_t offset, uint64_t length) override {
    if (length < wanted_.opt_discard) return ready(fail_errno(ENOTSUP));
    if (auto met = meet(Operation::kDiscard, offset, length); !met) return ready(std::move(met));
    return child_.discard(offset, length);
  }
  io::Task<Result<void>> flush() override {
    if (auto met = meet(Operation::kFlush, 0, 0); !met) return ready(std::move(met));
    return child_.flush();
  }
  io::Task<Result<BlockStatus>> status(uint64_t offset, uint64_t length,
                                       StatusDetail detail) override {
    if (auto met = meet(Operation::kBlockStatus, offset, length); !met)
      return io::Task<Result<BlockStatus>>::ready(std::unexpected(std::move(met).error()));
    return child_.status(offset, length, detail);
  }
  io::Task<Result<uint64_t>> zone_append(uint64_t offset, io::BufferList buffers,
                                         WriteFlags flags) override {
    if (auto met = meet(Operation::kWrite, offset, buffers.size()); !met)
      return io::Task<Result<uint64_t>>::ready(std::unexpected(std::move(met).error()));
    return child_.zone_append(offset, buffers, flags);
  }
  DebugPoints* debug_points() override { return &rules_; }
  Reopenable* reopenable() override { return this; }
  io::Task<Result<void>> reopen(base::OptionSet, OpenFlags) override {
    return io::Task<Result<void>>::ready(Result<void>());
  }

 private:
  static io::Task<Result<void>> ready(Result<void> result) {
    return io::Task<Result<void>>::ready(std::move(result));
  }
  Result<void> meet(Operation operation, uint64_t offset, uint64_t length) {
    if (!rules_.in_force()) [[likely]]
      return {};
    return rules_.check(operation, offset, length);
  }

  Rules rules_;
  const WantedLimits wanted_;
};

Result<void> check_limits(const WantedLimits& wanted, uint32_t below) {
  auto refuse = [](std::string_view name, uint64_t value) {
    return fail(EINVAL, fmt::format("Cannot meet constraints with {} {}", name, value));
  };
  if (wanted.align != 0 && (wanted.align >= kMaxAlignment || !std::has_single_bit(wanted.align)))
    return refuse("align", wanted.align);
  const uint64_t alignment = std::max<uint64_t>(wanted.align, below);
  const uint64_t zero_unit = std::max(alignment, wanted.opt_write_zero);
  const uint64_t discard_unit = std::max(alignment, wanted.opt_discard);
  const struct {
    std::string_view name;
    uint64_t value, unit;
  } sizes[] = {
      {"max-transfer", wanted.max_transfer, alignment},
      {"opt-write-zero", wanted.opt_write_zero, alignment},
      {"max-write-zero", wanted.max_write_zero, zero_unit},
      {"opt-discard", wanted.opt_discard, alignment},
      {"max-discard", wanted.max_discard, discard_unit},
  };
  for (const auto& [name, value, unit] : sizes) {
    if (value > INT32_MAX || value % unit != 0) return refuse(name, value);
  }
  return {};
}

// "inject-error.0.event", "inject-error.1.event"...; or "inject-error.event" where there is one.
Result<void> take_rules(OpenContext& context, std::string_view section, RuleSet& rules) {
  base::Options all = context.take_options(section);
  auto add = [&](const base::Options& one) {
    return section == "inject-error" ? rules.add_injection(one) : rules.add_change(one);
  };
  for (unsigned index = 0; all.has_subtree(std::to_string(index)); ++index) {
    PLATTER_TRY(add(all.take_subtree(std::to_string(index))));
  }
  if (all.empty()) return {};
  const std::string& first = all.entries().front().first;
  if (first.find('.') != first.npos)
    return fail(EINVAL, fmt::format("Unused option '{}' for [{}]", first, section));
  return add(all);
}

io::Task<Result<std::string>> read_config(OpenContext& context, std::string path) {
  auto read = [&]() -> Result<std::unique_ptr<io::File>> {
    return context.graph().environment().files.open(path, {});
  };
  auto file = read();
  Result<io::FileInfo> info = file ? (*file)->info() : std::unexpected(file.error());
  if (!info)
    co_return std::unexpected(
        Error::from_errno(info.error().code(), "Could not read blkdebug config file"));
  if (info->size > kMaxConfigBytes)
    co_return fail(EFBIG, fmt::format("The blkdebug config file '{}' is larger than {} bytes", path,
                                      kMaxConfigBytes));
  std::string text(info->size, '\0');
  auto filled = co_await io::read_full(
      **file, 0, io::BufferList(reinterpret_cast<uint8_t*>(text.data()), text.size()));
  if (!filled)
    co_return std::unexpected(
        std::move(filled).error().with_context("Could not read blkdebug config file"));
  co_return text;
}

io::Task<Result<std::unique_ptr<Driver>>> open_blkdebug(OpenContext& context) {
  const base::OptionSet& options = context.options();
  RuleSet rules;
  if (options.has("config") && !options.get_string("config").empty()) {
    PLATTER_CO_ASSIGN(const std::string text,
                      co_await read_config(context, options.get_string("config")));
    PLATTER_CO_TRY(blkdebug::parse_config(text, rules));
  }
  PLATTER_CO_TRY(take_rules(context, "inject-error", rules));
  PLATTER_CO_TRY(take_rules(context, "set-state", rules));
  const std::string image_name = options.has("x-image") ? options.get_string("x-image") : "";
  PLATTER_CO_ASSIGN(
      Child * image,
      co_await context.open_child("image", ChildRole::kFiltered | ChildRole::kPrimary, image_name));
  const WantedLimits wanted = {
      .align = options.get_size("align"),
      .max_transfer = options.get_size("max-transfer"),
      .opt_write_zero = options.get_size("opt-write-zero"),
      .max_write_zero = options.get_size("max-write-zero"),
      .opt_discard = options.get_size("opt-discard"),
      .max_discard = options.get_size("max-discard"),
  };
  PLATTER_CO_TRY(check_limits(wanted, image->node().limits().request_alignment));
  co_return std::make_unique<BlkdebugDriver>(*image, std::move(rules), wanted);
}

// "blkdebug:CONFIG:IMAGE"; CONFIG may be empty.
Result<base::Options> parse_filename(std::string_view filename) {
  filename.remove_prefix(kPrefix.size());
  const size_t colon = filename.find(':');
  if (colon == filename.npos)
    return fail(EINVAL, "blkdebug requires both config file and image path");
  base::Options options;
  if (colon != 0) options.set("config", std::string(filename.substr(0, colon)));
  options.set("x-image", std::string(filename.substr(colon + 1)));
  return options;
}

constexpr base::OptionDef kRuntimeOptions[] = {
    {.name = "config", .type = OptionType::kString, .help = "Path to the configuration file"},
    {.name = "x-image",
     .type = OptionType::kString,
     .help = "Name of the image, where 'image' is not given"},
    {.name = "align",
     .type = OptionType::kSize,
     .help = "Required alignment in bytes",
     .default_value = "0"},
    {.name = "max-transfer",
     .type = OptionType::kSize,
     .help = "Maximum transfer size in bytes",
     .default_value = "0"},
    {.name = "opt-write-zero",
     .type = OptionType::kSize,
     .help = "Optimum write zero alignment in bytes",
     .default_value = "0"},
    {.name = "max-write-zero",
     .type = OptionType::kSize,
     .help = "Maximum write zero size in bytes",
     .default_value = "0"},
    {.name = "opt-discard",
     .type = OptionType::kSize,
     .help = "Optimum discard alignment in bytes",
     .default_value = "0"},
    {.name = "max-discard",
     .type = OptionType::kSize,
     .help = "Maximum discard size in bytes",
     .default_value = "0"},
};

}  // namespace

const DriverType kBlkdebug = {
    .name = "blkdebug",
    .kind = DriverKind::kFilter,
    .runtime_options = base::OptionSchema(kRuntimeOptions),
    .create_options = base::OptionSchema({}),
    .filename_prefix = "blkdebug",
    .parse_filename = parse_filename,
    .open = open_blkdebug,
};

}  // namespace platter::filter
