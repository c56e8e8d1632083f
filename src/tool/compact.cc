// platter compact: gives back the room that an image's file does not need.
#include "base/size.h"
#include "fmt/format.h"
#include "tool/arguments.h"
#include "tool/command.h"
#include "tool/image_open.h"
#include "tool/long_work.h"
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

io::Task<int> compact_node(Session& session, const Invocation& invocation, block::Backend& backend,
                           bool json) {
  LongWork work(session, invocation, kProgressStepPercent);
  block::Node& node = backend.node();
  auto* compactable = node.driver().compactable();
  if (compactable == nullptr) {
    const int status = invocation.fail(
        fmt::format("Images of the format '{}' cannot be compacted", node.type().name));
    co_return co_await close_image(invocation, backend, status);
  }
  work.cancel_on_interrupt();
  co_await session.graph().drained_begin(node);
  auto compacted = co_await compactable->compact(work.token(), work.progress_sink());
  session.graph().drained_end(node);
  Result<void> done;
  if (!compacted) {
    done =
        std::unexpected(std::move(compacted).error().with_context("Could not compact the image"));
  }
  int status = work.finish(done, "the image is in order, and partly compacted");
  status = co_await close_image(invocation, backend, status);
  if (status == 0) say_done(invocation, *compacted, json);
  co_return status;
}

io::Task<int> run_in(Session& session, const Invocation& invocation,
                     const CompactArguments& arguments) {
  auto backend = co_await open_image(session, arguments.image);
  if (!backend) co_return invocation.fail(backend.error());
  co_return co_await compact_node(session, invocation, **backend, arguments.json);
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
