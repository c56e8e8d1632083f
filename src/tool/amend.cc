// platter amend: changes what an image's header says of its version and features.
#include <cerrno>

#include "base/try.h"
#include "block/registry.h"
#include "fmt/format.h"
#include "tool/arguments.h"
#include "tool/command.h"
#include "tool/image_open.h"
#include "tool/long_work.h"
#include "tool/session.h"

namespace platter::tool {
namespace {

constexpr double kProgressStepPercent = 1.0;

struct AmendArguments {
  std::string option_list;
  ImageArgument image;
  bool force = false;
};

Result<std::string> amend_help(const block::DriverType& type) {
  if (type.amend_options.defs().empty()) {
    return fail(ENOTSUP,
                fmt::format("Format driver '{}' does not support option amendment", type.name));
  }
  return fmt::format("Amend options for '{}':\n{}", type.name, type.amend_options.help_text());
}

int print_help(const Invocation& invocation, const block::DriverType& type) {
  auto text = amend_help(type);
  if (!text) return invocation.fail(text.error());
  invocation.console.print(*text);
  return 0;
}

// An option that only create has is told apart from one that nobody knows.
Result<base::OptionSet> parse_options(const block::DriverType& type, const std::string& list) {
  PLATTER_ASSIGN(auto options, base::Options::from_key_values(list));
  for (const auto& [key, value] : options.entries()) {
    if (type.amend_options.find(key) != nullptr) continue;
    Error error(EINVAL, fmt::format("Invalid parameter '{}'", key));
    if (type.create_options.find(key) != nullptr)
      error = std::move(error).with_hint("This option is only supported for image creation");
    return std::unexpected(std::move(error));
  }
  return type.amend_options.parse(options);
}

io::Task<int> amend_node(LongWork& work, const Invocation& invocation, block::Node& node,
                         const AmendArguments& arguments) {
  const block::DriverType& type = node.type();
  if (asks_for_help(arguments.option_list)) co_return print_help(invocation, type);
  auto* amendable = node.driver().amendable();
  if (amendable == nullptr) {
    co_return invocation.fail(
        fmt::format("Format driver '{}' does not support option amendment", type.name));
  }
  auto options = parse_options(type, arguments.option_list);
  if (!options) co_return invocation.fail(options.error());
  auto amended = co_await amendable->amend(*options, arguments.force, work.progress_sink());
  if (!amended)
    amended = std::unexpected(explain(std::move(amended).error(), "amend", node.filename()));
  co_return work.finish(amended, {});
}

io::Task<int> run_in(Session& session, const Invocation& invocation,
                     const AmendArguments& arguments) {
  LongWork work(session, invocation, kProgressStepPercent);
  auto backend = co_await open_image(session, arguments.image);
  if (!backend) co_return invocation.fail(backend.error());
  const int status = co_await amend_node(work, invocation, (*backend)->node(), arguments);
  co_return co_await close_image(invocation, **backend, status);
}

int run_amend(Invocation& invocation) {
  AmendArguments arguments;
  auto list = join_option_lists(invocation);
  if (!list) return invocation.fail(list.error());
  if (!invocation.has("o")) return invocation.usage_error("Must specify options (-o)");
  arguments.option_list = *list;
  arguments.force = invocation.has("force");
  const std::string format = invocation.value_or("f", "");
  if (!format.empty() && asks_for_help(*list)) {
    const auto registry = block::DriverRegistry::builtin();
    const auto* type = registry.find(format);
    if (type == nullptr) return invocation.fail("Unknown file format '" + format + "'");
    return print_help(invocation, *type);
  }
  if (invocation.operands.size() != 1) return invocation.fail("Expecting one image file name");
  const std::string cache_name = invocation.value_or("t", "writeback");
  auto cache = block::CacheMode::parse(cache_name);
  if (!cache) return invocation.fail("Invalid cache option: " + cache_name);
  if (auto checked = check_common_options(invocation); !checked)
    return invocation.fail(checked.error());
  arguments.image = {
      .name = invocation.operands[0],
      .image_opts = invocation.has("image-opts"),
      .format = format,
      .force_share = false,
      .flags = {.read_only = false},
      .cache = *cache,
      .needed = block::Permission::kConsistentRead | block::Permission::kWrite |
                block::Permission::kResize,
  };
  return run_session(invocation,
                     [&](Session& session) { return run_in(session, invocation, arguments); });
}

constexpr CommandOption kOptions[] = {
    {.name = "object", .argument = "OBJECT", .help = "define a secret or credentials"},
    {.name = "image-opts", .help = "FILE is a list of options, not a file name"},
    {.letter = 'p', .help = "show progress"},
    {.letter = 'q', .help = "say nothing but errors"},
    {.letter = 'f', .argument = "FMT", .help = "format of the image (default: found out)"},
    {.letter = 't', .argument = "CACHE", .help = "cache mode to write with"},
    {.name = "force", .help = "allow what may lock the image's owner out (encryption keys)"},
    {.letter = 'o',
     .argument = "OPTIONS",
     .help = "what to change; '-o help' lists it",
     .required = true},
};

}  // namespace

extern const Command kAmendCommand;
const Command kAmendCommand = {
    .name = "amend",
    .summary = "Change an image's version and features.",
    .operands = "FILE",
    .options = kOptions,
    .run = run_amend,
};

}  // namespace platter::tool
