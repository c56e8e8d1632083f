// platter bitmap: changes the persistent dirty bitmaps of an image.
#include <algorithm>
#include <cerrno>

#include "base/try.h"
#include "fmt/format.h"
#include "tool/arguments.h"
#include "tool/command.h"
#include "tool/image_open.h"
#include "tool/session.h"

namespace platter::tool {
namespace {

constexpr std::string_view kActions[] = {"add", "remove", "clear", "enable", "disable", "merge"};

struct BitmapRequest {
  std::vector<const GivenOption*> actions;  // in the order given
  std::string bitmap;
  std::optional<ImageArgument> source;  // -b: whose bitmaps are merged
};

// Why the image cannot do what is asked: its format has no bitmaps or, so far, none that can be
// changed.
std::string refusal(const block::Node& node, std::string_view action, std::string_view bitmap) {
  auto* store = node.driver().bitmap_store();
  const auto bitmaps = store != nullptr ? store->bitmaps() : std::vector<block::BitmapInfo>{};
  const bool known = std::ranges::find(bitmaps, bitmap, &block::BitmapInfo::name) != bitmaps.end();
  if (bitmap.empty() && action == "add") return "Bitmap name cannot be empty";
  if (store == nullptr && action == "add") {
    return fmt::format("Can't store persistent bitmaps to {}: Operation not supported",
                       node.name());
  }
  if (!known && action != "add") return fmt::format("Dirty bitmap '{}' not found", bitmap);
  return "Changing bitmaps is not supported by this version; the image has not been touched";
}

io::Task<int> run_in(Session& session, const Invocation& invocation, ImageArgument image,
                     const BitmapRequest& request) {
  auto backend = co_await open_image(session, std::move(image));
  if (!backend) co_return invocation.fail(backend.error());
  int status = 1;
  std::unique_ptr<block::Backend> source;
  Result<void> ready;
  if (request.source) {
    auto opened = co_await open_image(session, *request.source);
    if (opened) source = std::move(*opened);
    if (!opened) ready = std::unexpected(std::move(opened).error());
  }
  if (ready) {
    const auto action = request.actions.front()->option->name;
    status = invocation.fail(
        fmt::format("Operation {} on bitmap {} failed: {}", action, request.bitmap,
                    refusal((*backend)->node().skip_filters(), action, request.bitmap)));
  } else {
    invocation.console.error(ready.error());
  }
  for (auto* open : {&source, &*backend}) {
    if (!*open) continue;
    if (auto closed = co_await (*open)->close(); !closed) invocation.console.error(closed.error());
  }
  co_return status;
}

std::optional<int> read_actions(const Invocation& invocation, BitmapRequest& request) {
  bool add = false;
  bool merge = false;
  for (const auto& given : invocation.options) {
    if (std::ranges::find(kActions, given.option->name) == std::ranges::end(kActions)) continue;
    request.actions.push_back(&given);
    add = add || given.option->name == "add";
    merge = merge || given.option->name == "merge";
  }
  if (auto text = invocation.value("granularity")) {
    if (!parse_size_argument(invocation, "granularity", *text)) return 1;
  }
  if (invocation.operands.size() != 2 && !request.actions.empty())
    return invocation.fail("Expecting filename and bitmap name");
  if (request.actions.empty()) {
    return invocation.fail(
        "Need at least one of --add, --remove, --clear, --enable, --disable, or --merge");
  }
  if (invocation.has("granularity") && !add)
    return invocation.fail("granularity only supported with --add");
  if (invocation.has("source-format") && !invocation.has("source-file"))
    return invocation.fail("-F only supported with -b");
  if (invocation.has("source-file") && !merge)
    return invocation.fail("Merge bitmap source file only supported with --merge");
  return std::nullopt;
}

int run_bitmap(Invocation& invocation) {
  BitmapRequest request;
  if (auto status = read_actions(invocation, request)) return *status;
  if (auto checked = check_common_options(invocation); !checked)
    return invocation.fail(checked.error());
  request.bitmap = invocation.operands[1];
  ImageArgument image = {
      .name = invocation.operands[0],
      .image_opts = invocation.has("image-opts"),
      .format = invocation.value_or("f", ""),
      .force_share = false,
      .flags = {.read_only = false, .no_backing = true},
      .cache = {},
      .needed = block::Permission::kConsistentRead | block::Permission::kWrite,
  };
  if (auto source = invocation.value("source-file")) {
    request.source = ImageArgument{
        .name = *source,
        .format = invocation.value_or("source-format", ""),
        .flags = {.read_only = true, .no_io = true, .no_backing = true},
        .cache = {},
    };
  }
  return run_session(invocation,
                     [&](Session& session) { return run_in(session, invocation, image, request); });
}

constexpr CommandOption kOptions[] = {
    {.name = "merge", .argument = "SOURCE", .help = "add what the bitmap SOURCE has"},
    {.name = "add", .help = "make the bitmap"},
    {.name = "remove", .help = "remove it"},
    {.name = "clear", .help = "take everything for clean"},
    {.name = "enable", .help = "record writes from now on"},
    {.name = "disable", .help = "do not record writes any more"},
    {.letter = 'b', .name = "source-file", .argument = "FILE", .help = "image that has SOURCE"},
    {.letter = 'F', .name = "source-format", .argument = "FMT", .help = "format of that image"},
    {.letter = 'g',
     .name = "granularity",
     .argument = "BYTES",
     .help = "what one bit stands for (with --add)"},
    {.name = "object", .argument = "OBJECT", .help = "define a secret or credentials"},
    {.name = "image-opts", .help = "FILE is a list of options, not a file name"},
    {.letter = 'f', .argument = "FMT", .help = "format of the image (default: found out)"},
};

}  // namespace

extern const Command kBitmapCommand;
const Command kBitmapCommand = {
    .name = "bitmap",
    .summary = "Change the dirty bitmaps of an image (not supported by this version).",
    .operands = "FILE BITMAP",
    .options = kOptions,
    .run = run_bitmap,
};

}  // namespace platter::tool
