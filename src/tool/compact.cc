// platter compact: gives back the room that an image's file does not need.
#include <cerrno>

#include "base/size.h"
#include "base/try.h"
#include "fmt/format.h"
#include "tool/arguments.h"
#include "tool/command.h"
#include "tool/image_open.h"
#include "tool/progress.h"
#include "tool/session.h"

namespace platter::tool {
namespace {

constexpr double kProgressStepPercent = 1.0;

struct CompactArguments {
  ImageArgument image;
  bool json = false;
};

void say_done(const Invocation& invocation, const block::CompactResult& result, bool json) {
  if (json) {
    auto text = base::Json::object();
    text.add("filename", invocation.operands[0]);
    text.add("file-size", result.bytes_after);
    text.add("file-size-before", result.bytes_before);
    text.add("moved-bytes", result.moved_bytes);
    invocation.console.print(text.dump_pretty() + "\n");
  } else if (!invocation.has("q")) {
    invocation.console.print(fmt::format(
        "{}: {} -> {} ({} moved)\n", invocation.operands[0], base::format_size(result.bytes_before),
        base::format_size(result.bytes_after), base::format_size(result.moved_bytes)));
  }
}

io::Task<Result<block::CompactResult>> compact_node(Session& session, const Invocation& invocation,
                                                    block::Node& node) {
  auto* compactable = node.driver().compactable();
  if (compactable == nullptr) {
    co_return fail(ENOTSUP,
                   fmt::format("Images of the format '{}' cannot be compacted", node.type().name));
  }
  Progress progress(invocation.console, choose_progress_style(invocation), kProgressStepPercent);
  io::CancelSource interrupted;
  session.interrupts().set_progress_handler([&progress] { progress.report(); });
  session.interrupts().set_handler([&interrupted] { interrupted.cancel(); });
  co_await session.graph().drained_begin(node);
  auto compacted = co_await compactable->compact(
      interrupted.token(),
      [&progress](uint64_t done, uint64_t total) { progress.update(done, total); });
  session.graph().drained_end(node);
  session.interrupts().set_handler({});
  session.interrupts().set_progress_handler({});
  if (compacted) progress.complete();
  progress.finish();
  if (!compacted && interrupted.is_cancelled())
    co_return fail(ECANCELED, "Interrupted: the image is in order, and partly compacted");
  if (!compacted) compacted.error().add_context("Could not compact the image");
  co_return compacted;
}

io::Task<int> run_in(Session& session, const Invocation& invocation,
                     const CompactArguments& arguments) {
  auto backend = co_await open_image(session, arguments.image);
  if (!backend) co_return invocation.fail(backend.error());
  auto result = co_await compact_node(session, invocation, (*backend)->node());
  auto closed = co_await (*backend)->close();
  if (!result) co_return invocation.fail(result.error());
  if (!closed) {
    co_return invocation.fail(std::move(closed).error().with_context("Could not close the image"));
  }
  say_done(invocation, *result, arguments.json);
  co_return 0;
}

int run_compact(Invocation& invocation) {
  CompactArguments arguments;
  if (invocation.operands.size() != 1)
    return invocation.usage_error("Expecting one image file name");
  const std::string cache_name = invocation.value_or("t", "writeback");
  auto cache = block::CacheMode::parse(cache_name);
  if (!cache) return invocation.fail("Invalid cache option: " + cache_name);
  const auto json = json_output(invocation);
  if (!json) return invocation.fail(json.error());
  arguments.json = *json;
  if (auto checked = check_common_options(invocation); !checked)
    return invocation.fail(checked.error());
  arguments.image = {
      .name = invocation.operands[0],
      .image_opts = invocation.has("image-opts"),
      .format = invocation.value_or("f", ""),
      .force_share = false,
      .flags = {.read_only = false, .no_backing = true},
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
    {.name = "output", .argument = "FORM", .help = "human or json", .native = true},
};

}  // namespace

extern const Command kCompactCommand;
const Command kCompactCommand = {
    .name = "compact",
    .summary = "Move an image's clusters together and give the rest of its file back.",
    .operands = "FILE",
    .options = kOptions,
    .run = run_compact,
    .native = true,
};

}  // namespace platter::tool
