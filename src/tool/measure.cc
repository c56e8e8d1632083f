// platter measure: how large an image's file will be, before it is made.
#include <cerrno>

#include "base/math.h"
#include "base/try.h"
#include "block/registry.h"
#include "fmt/format.h"
#include "tool/arguments.h"
#include "tool/command.h"
#include "tool/image_open.h"
#include "tool/session.h"
#include "tool/snapshot_selector.h"

namespace platter::tool {
namespace {

struct MeasureArguments {
  const block::DriverType* target = nullptr;
  std::string option_list;  // -o, joined
  base::Options options;    // the target's own of them
  std::optional<uint64_t> size;
  std::optional<ImageArgument> source;
  std::optional<SnapshotSelector> snapshot;
  bool json = false;
};

std::string to_text(const block::Measurement& measurement) {
  std::string text = fmt::format("required size: {}\nfully allocated size: {}\n",
                                 measurement.required, measurement.fully_allocated);
  if (measurement.bitmaps) text += fmt::format("bitmaps size: {}\n", *measurement.bitmaps);
  return text;
}

base::Json to_json(const block::Measurement& measurement) {
  auto json = base::Json::object();
  if (measurement.bitmaps) json.add("bitmaps", *measurement.bitmaps);
  json.add("required", measurement.required);
  json.add("fully-allocated", measurement.fully_allocated);
  return json;
}

io::Task<Result<block::Measurement>> measure(const MeasureArguments& arguments, uint64_t size,
                                             block::Backend* source) {
  base::Options options = arguments.options;
  options.set("size", size);
  PLATTER_CO_ASSIGN(const auto values, arguments.target->create_options.parse(options));
  co_return co_await arguments.target->measure({.options = values, .source = source});
}

io::Task<Result<block::Measurement>> measure_source(const MeasureArguments& arguments,
                                                    block::Backend& source) {
  if (arguments.snapshot) {
    auto loaded = co_await load_snapshot(source, *arguments.snapshot);
    if (!loaded) {
      co_return std::unexpected(std::move(loaded).error().with_context("Failed to load snapshot"));
    }
  }
  co_return co_await measure(arguments, source.size(), &source);
}

// Both errors where the list of options is wrong.
int option_failure(const Invocation& invocation, const Error& error, std::string_view format) {
  invocation.console.error(error);
  return invocation.fail(fmt::format("Invalid options for file format '{}'", format));
}

std::optional<int> read_target(const Invocation& invocation, MeasureArguments& arguments) {
  const auto registry = block::DriverRegistry::builtin();
  const std::string format = invocation.value_or("O", "raw");
  const auto* type = registry.find(format);
  if (type == nullptr) return invocation.fail("Unknown file format '" + format + "'");
  if (type->create == nullptr) {
    return invocation.fail("Format driver '" + format + "' does not support image creation");
  }
  if (type->measure == nullptr) {
    return invocation.fail("Block driver '" + format + "' does not support size measurement");
  }
  arguments.target = type;
  auto options = base::Options::from_key_values(arguments.option_list);
  if (!options) return option_failure(invocation, options.error(), format);
  // Options of the file beneath change nothing here.
  base::Options rest = *options;
  if (auto taken = type->create_options.take(rest); !taken)
    return option_failure(invocation, taken.error(), format);
  if (auto parsed = registry.find("file")->create_options.parse(rest); !parsed)
    return option_failure(invocation, parsed.error(), format);
  for (const auto& [key, value] : options->entries()) {
    if (type->create_options.find(key) != nullptr) arguments.options.set(key, value);
  }
  return std::nullopt;
}

io::Task<int> measure_and_print(const Invocation& invocation, MeasureArguments& arguments,
                                block::Backend* source) {
  if (auto status = read_target(invocation, arguments)) co_return *status;
  auto measured = source != nullptr ? co_await measure_source(arguments, *source)
                                    : co_await measure(arguments, *arguments.size, nullptr);
  if (!measured) {
    const std::string name = source != nullptr ? source->node().filename() : "";
    co_return invocation.fail(explain(std::move(measured).error(), "measure", name));
  }
  invocation.console.print(arguments.json ? to_json(*measured).dump_pretty() + "\n"
                                          : to_text(*measured));
  co_return 0;
}

io::Task<int> run_in(Session& session, const Invocation& invocation, MeasureArguments& arguments) {
  if (!arguments.source) co_return co_await measure_and_print(invocation, arguments, nullptr);
  auto backend = co_await open_image(session, *arguments.source);
  if (!backend) co_return invocation.fail(backend.error());
  const int status = co_await measure_and_print(invocation, arguments, backend->get());
  co_return co_await close_image(invocation, **backend, status);
}

std::optional<int> read_source(const Invocation& invocation, MeasureArguments& arguments) {
  const auto& names = invocation.operands;
  const bool about_file =
      invocation.has("image-opts") || invocation.has("f") || invocation.has("l");
  if (names.size() > 1) return invocation.fail("At most one filename argument is allowed.");
  if (names.size() == 1) {
    arguments.source = ImageArgument{
        .name = names[0],
        .image_opts = invocation.has("image-opts"),
        .format = invocation.value_or("f", ""),
        .force_share = invocation.has("force-share"),
        .flags = {.read_only = true},
        .cache = {},
    };
  } else if (about_file) {
    return invocation.fail("--image-opts, -f, and -l require a filename argument.");
  }
  if (!arguments.source && !arguments.size)
    return invocation.fail("Either --size N or one filename must be specified.");
  if (arguments.source && arguments.size)
    return invocation.fail("--size N cannot be used together with a filename.");
  return std::nullopt;
}

int run_measure(Invocation& invocation) {
  MeasureArguments arguments;
  auto list = join_option_lists(invocation);
  if (!list) return invocation.fail(list.error());
  arguments.option_list = *list;
  if (auto text = invocation.value("l")) {
    auto selector = SnapshotSelector::parse(*text);
    if (!selector) {
      invocation.console.error(selector.error().message());
      return invocation.fail(selector.error().hint());
    }
    arguments.snapshot = *selector;
  }
  if (auto text = invocation.value("size")) {
    arguments.size = parse_size_argument(invocation, "image size", *text);
    if (!arguments.size) return 1;
  }
  auto json = json_output(invocation);
  if (!json) return invocation.fail(json.error());
  arguments.json = *json;
  if (auto status = read_source(invocation, arguments)) return *status;
  if (auto checked = check_common_options(invocation); !checked)
    return invocation.fail(checked.error());
  return run_session(invocation,
                     [&](Session& session) { return run_in(session, invocation, arguments); });
}

constexpr CommandOption kOptions[] = {
    {.name = "output", .argument = "FORM", .help = "human or json"},
    {.letter = 'O', .argument = "FMT", .help = "format of the image to be made (default: raw)"},
    {.letter = 'o', .argument = "OPTIONS", .help = "its creation options"},
    {.name = "size", .argument = "N", .help = "its size, where no FILE says it"},
    {.name = "object", .argument = "OBJECT", .help = "define a secret or credentials"},
    {.name = "image-opts", .help = "FILE is a list of options, not a file name"},
    {.letter = 'f', .argument = "FMT", .help = "format of FILE (default: found out)"},
    {.letter = 'l', .argument = "SNAPSHOT", .help = "the snapshot of FILE to measure for"},
    {.letter = 'U', .name = "force-share", .help = "open FILE even while somebody writes to it"},
};

}  // namespace

extern const Command kMeasureCommand;
const Command kMeasureCommand = {
    .name = "measure",
    .summary = "Tell how large an image's file would be.",
    .operands = "[FILE]",
    .options = kOptions,
    .run = run_measure,
};

}  // namespace platter::tool
