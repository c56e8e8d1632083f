// platter convert: copies images into a new or an existing one, of the same or another format.
#include "tool/convert.h"

#include <algorithm>
#include <cerrno>
#include <optional>
#include <ranges>

#include "base/math.h"
#include "base/size.h"
#include "base/try.h"
#include "block/dirty_bitmap.h"
#include "job/copy_engine.h"
#include "tool/create_image.h"
#include "tool/image_open.h"
#include "tool/long_work.h"
#include "tool/session.h"

namespace platter::tool {
namespace {

constexpr double kProgressStepPercent = 1.0;

// Chunks in flight where -m does not say.
constexpr unsigned kDirectWorkers = 8;
constexpr unsigned kMinWorkers = 2;
constexpr unsigned kMaxBufferedWorkers = 4;
// Some read and write while others keep every processor compressing.
constexpr unsigned kCompressingWorkersPerReactor = 2;

std::unexpected<Error> no_bitmaps_in(const block::DriverType& format) {
  return fail(ENOTSUP, "Format driver '" + std::string(format.name) + "' does not support bitmaps");
}

class Conversion {
 public:
  Conversion(Session& session, const Invocation& invocation, const ConvertArguments& arguments)
      : session_(session),
        invocation_(invocation),
        arguments_(arguments),
        work_(session, invocation, kProgressStepPercent),
        progress_wanted_(choose_progress_style(invocation) != ProgressStyle::kNone) {}
  Conversion(const Conversion&) = delete;
  Conversion& operator=(const Conversion&) = delete;

  io::Task<int> run();

 private:
  io::Task<Result<void>> convert();
  io::Task<Result<void>> open_sources();
  Result<base::Options> creation_options() const;
  Result<void> check_compression(const block::DriverType* format,
                                 const base::Options& options) const;
  io::Task<Result<void>> create_target();
  io::Task<Result<void>> open_target();
  Result<void> check_target() const;
  Result<void> check_source_bitmaps() const;
  Result<void> check_bitmaps() const;
  io::Task<Result<void>> copy_bitmaps() const;
  unsigned choose_workers() const;
  void report_lost(uint64_t offset, const Error& error) const;
  io::Task<Result<void>> copy_content();
  io::Task<Result<void>> close_all();
  void remove_target();

  Session& session_;
  const Invocation& invocation_;
  const ConvertArguments& arguments_;
  LongWork work_;
  const bool progress_wanted_;
  std::vector<std::unique_ptr<block::Backend>> sources_;
  std::unique_ptr<block::Backend> target_;
  base::Options target_secrets_;
  uint64_t size_ = 0;  // of the sources together
  base::Json result_;  // once the content is copied
  bool created_ = false;
  std::optional<HalfMadeFile> half_made_;  // from the moment that the target is made
};

io::Task<Result<void>> Conversion::open_sources() {
  // Nobody may write to a source meanwhile, this program to its target included, unless -U says so.
  const block::Permissions shared = arguments_.force_share ? block::kAllPermissions
                                                           : block::Permission::kConsistentRead |
                                                                 block::Permission::kWriteUnchanged;
  for (const std::string& name : arguments_.sources) {
    PLATTER_CO_ASSIGN(auto source,
                      co_await open_image(session_, {.name = name,
                                                     .image_opts = arguments_.image_opts,
                                                     .format = arguments_.format,
                                                     .force_share = arguments_.force_share,
                                                     .flags = {.read_only = true},
                                                     .cache = arguments_.source_cache,
                                                     .shared = shared}));
    auto size = base::checked_add(size_, source->size());
    sources_.push_back(std::move(source));
    if (!size || *size > block::kMaxLength) {
      co_return fail(EFBIG, "The source images together are larger than an image can be");
    }
    size_ = *size;
  }
  if (arguments_.bitmaps && sources_.size() > 1)
    co_return fail(EINVAL, "Copying bitmaps only possible with single source");
  if (arguments_.bitmaps) PLATTER_CO_TRY(check_source_bitmaps());
  if (!arguments_.snapshot) co_return Result<void>{};
  if (sources_.size() > 1) co_return fail(EINVAL, "No support for concatenating multiple snapshot");
  auto loaded = co_await load_snapshot(*sources_.front(), *arguments_.snapshot);
  if (!loaded) loaded.error().add_context("Failed to load snapshot");
  size_ = sources_.front()->size();  // it may have had another one
  co_return loaded;
}

// What -o, -B and -F say about the target, checked as far as that can be done without touching it.
Result<base::Options> Conversion::creation_options() const {
  PLATTER_ASSIGN(auto drivers, find_create_drivers(session_.registry(), arguments_.target_format,
                                                   arguments_.target));
  const bool takes_backing = drivers.format->create_options.find("backing_file") != nullptr;
  if (!takes_backing && !arguments_.backing && arguments_.backing_format) {
    return fail(ENOTSUP, "Backing file format not supported for file format '" +
                             arguments_.target_format + "'");
  }
  if (!takes_backing && arguments_.backing) {
    return fail(ENOTSUP,
                "Backing file not supported for file format '" + arguments_.target_format + "'");
  }
  PLATTER_ASSIGN(auto options, base::Options::from_key_values(arguments_.creation_options));
  if (arguments_.backing) options.set("backing_file", *arguments_.backing);
  if (arguments_.backing_format) options.set("backing_fmt", *arguments_.backing_format);
  base::Options rest = options;
  PLATTER_ASSIGN(const auto values, drivers.format->create_options.take(rest));
  PLATTER_TRY(drivers.protocol->create_options.parse(rest));
  if (arguments_.bitmaps &&
      (drivers.format->holds_bitmaps == nullptr || !drivers.format->holds_bitmaps(values))) {
    return no_bitmaps_in(*drivers.format);
  }
  auto backing = options.find_string("backing_file");
  if (backing && sources_.size() > 1) {
    return fail(EINVAL,
                "Having a backing file for the target makes no sense when concatenating multiple "
                "input images");
  }
  if (backing && !options.find("backing_fmt")) {
    return fail(EINVAL, "Use of backing file requires explicit backing format");
  }
  PLATTER_TRY(check_compression(drivers.format, options));
  options.set("size", size_);
  return options;
}

Result<void> Conversion::check_compression(const block::DriverType* format,
                                           const base::Options& options) const {
  if (!arguments_.compressed || format == nullptr) return {};
  if (!format->supports_compression) {
    return fail(ENOTSUP, "Compression not supported for this file format");
  }
  const auto encryption = options.find_string("encryption");
  if ((encryption && *encryption != "off") || options.find("encrypt.format") != nullptr) {
    return fail(EINVAL, "Compression and encryption not supported at the same time");
  }
  const auto preallocation = options.find_string("preallocation");
  if (preallocation && *preallocation != "off") {
    return fail(EINVAL, "Compression and preallocation not supported at the same time");
  }
  return {};
}

io::Task<Result<void>> Conversion::create_target() {
  PLATTER_CO_ASSIGN(auto options, creation_options());
  // What the target is created with opens it.
  for (const auto& [name, value] : options.entries())
    if (name.ends_with("key-secret")) target_secrets_.set(name, value);
  half_made_.emplace(session_, arguments_.target);
  auto made = co_await session_.graph().create({.filename = arguments_.target,
                                                .format = arguments_.target_format,
                                                .options = std::move(options)});
  if (!made) {
    co_return std::unexpected(std::move(made).error().with_context(
        arguments_.target + ": error while converting " + arguments_.target_format));
  }
  created_ = true;
  co_return Result<void>{};
}

io::Task<Result<void>> Conversion::open_target() {
  const bool as_options = arguments_.target_image_opts;
  PLATTER_CO_ASSIGN(
      target_, co_await open_image(
                   session_, {.name = arguments_.target,
                              .image_opts = as_options,
                              .format = as_options ? "" : arguments_.target_format,
                              .flags = {.read_only = false},
                              .cache = arguments_.target_cache,
                              .options = target_secrets_,
                              .discard_unmap = arguments_.sparse_size != 0,
                              .needed = block::Permission::kConsistentRead |
                                        block::Permission::kWrite | block::Permission::kResize}));
  co_return Result<void>{};
}

Result<void> Conversion::check_bitmaps() const {
  const block::Node& target = target_->node();
  if (target.driver().bitmap_store() == nullptr) return no_bitmaps_in(target.type());
  return {};
}

Result<void> Conversion::check_source_bitmaps() const {
  const auto* store = sources_.front()->node().skip_filters().driver().bitmap_store();
  if (store == nullptr) return fail(ENOTSUP, "Source lacks bitmap support");
  if (arguments_.skip_broken_bitmaps) return {};
  const auto bitmaps = store->bitmaps();
  for (const auto& bitmap : std::views::reverse(bitmaps)) {
    if (!bitmap.inconsistent) continue;
    return std::unexpected(Error(EINVAL, "Cannot copy inconsistent bitmap '" + bitmap.name + "'")
                               .with_hint("Try --skip-broken-bitmaps, or use '" +
                                          invocation_.console.program_name() +
                                          " bitmap --remove' to delete it"));
  }
  return {};
}

// Once the content is there: it is not to be recorded in them.
io::Task<Result<void>> Conversion::copy_bitmaps() const {
  auto& from = *sources_.front()->node().skip_filters().driver().bitmap_store();
  auto& to = *target_->node().driver().bitmap_store();
  const auto bitmaps = from.bitmaps();
  for (const auto& bitmap : std::views::reverse(bitmaps)) {
    if (bitmap.inconsistent)
      invocation_.console.warning("Skipping inconsistent bitmap '" + bitmap.name + "'");
  }
  for (const auto& bitmap : std::views::reverse(bitmaps)) {
    if (bitmap.inconsistent) continue;
    auto added = to.add_bitmap(bitmap.name, bitmap.granularity, /*enabled=*/false);
    if (!added) {
      co_return std::unexpected(
          std::move(added).error().with_context("Failed to create bitmap " + bitmap.name));
    }
    auto bits = co_await from.bitmap_bits(bitmap.name);
    Result<void> copied;
    if (bits) copied = to.merge_bitmap(bitmap.name, **bits);
    if (!bits) copied = std::unexpected(std::move(bits).error());
    if (!copied) {
      PLATTER_CO_TRY(to.remove_bitmap(bitmap.name));
      co_return std::unexpected(
          std::move(copied).error().with_context("Failed to populate bitmap " + bitmap.name));
    }
    PLATTER_CO_TRY(to.enable_bitmap(bitmap.name, bitmap.enabled));
  }
  co_return Result<void>{};
}

Result<void> Conversion::check_target() const {
  if (arguments_.compressed && target_->limits().compressed_alignment == 0) {
    return fail(ENOTSUP, "Compression not supported for this file format");
  }
  if (arguments_.bitmaps) PLATTER_TRY(check_bitmaps());
  if (target_->size() < size_) return fail(EINVAL, "output file is smaller than input file");
  const bool backed = target_->node().backing() != nullptr;
  if (backed && arguments_.target_is_zero) {
    return fail(EINVAL,
                "Cannot use --target-is-zero when the destination image has a backing file");
  }
  if (backed && sources_.size() > 1) {
    return fail(EINVAL,
                "Having a backing file for the target makes no sense when concatenating multiple "
                "input images");
  }
  return {};
}

// Direct I/O wants many chunks in flight. Through the page cache a file has one writer at a time,
// and more than a few workers only wait for each other, spinning.
unsigned Conversion::choose_workers() const {
  if (arguments_.workers != 0) return arguments_.workers;
  if (arguments_.compressed) {
    return std::clamp(session_.reactors().size() * kCompressingWorkersPerReactor, 4U,
                      job::kMaxCopyWorkers);
  }
  if (arguments_.target_cache.direct || arguments_.source_cache.direct) return kDirectWorkers;
  return std::clamp(session_.reactors().size(), kMinWorkers, kMaxBufferedWorkers);
}

void Conversion::report_lost(uint64_t offset, const Error& error) const {
  if (arguments_.quiet) return;
  invocation_.console.warning("error while reading offset " + std::to_string(offset) + ": " +
                              error.message());
}

io::Task<Result<void>> Conversion::copy_content() {
  PLATTER_CO_TRY(check_target());
  job::CopyOptions options;
  const block::Child* target_backing = target_->node().backing();
  // With -n, -B says of a target without a backing file of its own that it will be given one.
  const bool backed = target_backing != nullptr || arguments_.backing.has_value();
  for (const auto& source : sources_) {
    const block::Child* below = source->node().skip_filters().backing();
    options.sources.push_back(
        {source.get(), backed && below != nullptr ? &below->node() : nullptr});
  }
  options.target = target_.get();
  if (target_backing != nullptr) {
    options.target_backing_size = target_backing->size();
  } else if (backed) {
    options.target_backing_size =
        target_->size();  // what it will show is not known: zeroes are written
  }
  const auto reactors = session_.all_reactors();
  options.reactors = reactors;
  options.target_reads_zero =
      created_ ? target_->node().driver().zero_initialised() : arguments_.target_is_zero;
  options.sparse_size = arguments_.sparse_size;
  options.any_order = arguments_.any_order;
  options.compressed = arguments_.compressed;
  options.offload = arguments_.offload;
  options.bytes_per_second = arguments_.bytes_per_second;
  if (arguments_.salvage) {
    options.salvage = [this](uint64_t offset, const Error& error) { report_lost(offset, error); };
  }
  options.workers = choose_workers();
  options.cancel = work_.token();
  options.count_beforehand = progress_wanted_;
  options.progress = work_.progress_sink();
  PLATTER_CO_ASSIGN(const auto copied, co_await job::copy(std::move(options)));
  if (arguments_.bitmaps) PLATTER_CO_TRY(co_await copy_bitmaps());
  result_ = describe_image(arguments_.target, *target_);
  result_.add("data-bytes", copied.data_bytes);
  result_.add("zero-bytes", copied.zero_bytes + copied.skipped_bytes);
  co_return Result<void>{};
}

io::Task<Result<void>> Conversion::convert() {
  PLATTER_CO_TRY(co_await open_sources());
  if (!arguments_.skip_create) {
    PLATTER_CO_TRY(co_await create_target());
  } else if (!arguments_.target_image_opts) {
    PLATTER_CO_TRY(check_compression(session_.registry().find(arguments_.target_format), {}));
  }
  work_.cancel_on_interrupt();
  PLATTER_CO_TRY(co_await open_target());
  co_return co_await copy_content();
}

io::Task<Result<void>> Conversion::close_all() {
  Result<void> first;
  if (target_) {
    auto closed = co_await target_->close();
    if (!closed)
      first =
          std::unexpected(std::move(closed).error().with_context("error while closing the target"));
  }
  for (auto& source : sources_) {
    auto closed = co_await source->close();
    if (!closed && first) first = std::move(closed);
  }
  co_return first;
}

void Conversion::remove_target() {
  if (!created_ || !half_made_->remove()) return;
  if (invocation_.dialect == Dialect::kPlatter || work_.is_interrupted()) {
    invocation_.console.error("Removed the half-made '" + arguments_.target + "'");
  }
}

io::Task<int> Conversion::run() {
  auto converted = co_await convert();
  auto closed = co_await close_all();
  if (converted && !closed) converted = std::move(closed);
  if (converted) work_.progress().complete();
  work_.progress().finish();
  if (!converted) {
    if (!work_.is_interrupted()) {
      invocation_.console.error(
          explain(std::move(converted).error(), "convert to", arguments_.target));
    } else if (!created_) {
      invocation_.console.error("Interrupted: '" + arguments_.target +
                                "' has a part of the content");
    }
    remove_target();
    co_return 1;
  }
  if (arguments_.json) invocation_.console.print(result_.dump_pretty() + "\n");
  co_return 0;
}

io::Task<int> run_conversion(Session& session, const Invocation& invocation,
                             const ConvertArguments& arguments) {
  Conversion conversion(session, invocation, arguments);
  co_return co_await conversion.run();
}

int run_convert(Invocation& invocation) {
  ConvertArguments arguments;
  if (auto status = parse_convert_arguments(invocation, arguments)) return *status;
  return run_session(
      invocation, [&](Session& session) { return run_conversion(session, invocation, arguments); },
      Reactors::kOneAProcessor);
}

constexpr CommandOption kOptions[] = {
    {.name = "object", .argument = "OBJECT", .help = "define a secret or credentials"},
    {.name = "image-opts", .help = "SOURCE is a list of options, not a file name"},
    {.name = "target-image-opts", .help = "TARGET is a list of options (with -n)"},
    {.name = "target-is-zero", .help = "the existing TARGET is known to read as zeroes (with -n)"},
    {.name = "bitmaps", .help = "copy dirty bitmaps too"},
    {.name = "skip-broken-bitmaps", .help = "leave out bitmaps that are inconsistent"},
    {.letter = 'U', .name = "force-share", .help = "open SOURCE even while somebody writes to it"},
    {.letter = 'C', .help = "have the file system copy"},
    {.letter = 'c', .help = "compress"},
    {.letter = 'p', .help = "show progress"},
    {.letter = 'q', .help = "print nothing but errors"},
    {.letter = 'n', .help = "TARGET exists: do not create it"},
    {.letter = 'f', .argument = "FMT", .help = "format of SOURCE (default: found out)"},
    {.letter = 't', .argument = "CACHE", .help = "cache mode of TARGET (default: unsafe)"},
    {.letter = 'T', .argument = "CACHE", .help = "cache mode of SOURCE (default: writeback)"},
    {.letter = 'O', .argument = "FMT", .help = "format of TARGET (default: raw)"},
    {.letter = 'B', .argument = "FILE", .help = "backing file of TARGET"},
    {.letter = 'F', .argument = "FMT", .help = "format of the backing file"},
    {.letter = 'o', .argument = "OPTIONS", .help = "creation options of TARGET; 'help' lists them"},
    {.letter = 'l', .argument = "SNAPSHOT", .help = "the snapshot of SOURCE to convert"},
    {.letter = 'S',
     .argument = "SIZE",
     .help = "zeroes to leave sparse, at least this many (default: 4k; 0: none)"},
    {.letter = 'r', .argument = "RATE", .help = "write at most this many bytes a second"},
    {.letter = 'm', .argument = "N", .help = "chunks in flight, 1 to 16 (default: chosen)"},
    {.letter = 'W', .help = "write out of order"},
    {.name = "salvage", .help = "go on where SOURCE cannot be read"},
    {.name = "output", .argument = "FORM", .help = "human or json", .native = true},
};

}  // namespace

extern const Command kConvertCommand;
const Command kConvertCommand = {
    .name = "convert",
    .summary = "Copy images into a new one, of any format.",
    .operands = "SOURCE [SOURCE...] TARGET",
    .options = kOptions,
    .run = run_convert,
};

}  // namespace platter::tool
