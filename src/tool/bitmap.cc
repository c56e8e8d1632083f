// platter bitmap: changes the persistent dirty bitmaps of an image.
#include <algorithm>
#include <cerrno>

#include "base/try.h"
#include "block/dirty_bitmap.h"
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
  uint64_t granularity = 0;             // 0: what suits the image
  std::optional<ImageArgument> source;  // -b: whose bitmaps are merged
};

io::Task<Result<void>> check_known(const block::Node& node, std::string bitmap) {
  auto* store = node.driver().bitmap_store();
  const auto bitmaps = store != nullptr ? store->bitmaps() : std::vector<block::BitmapInfo>{};
  if (std::ranges::find(bitmaps, bitmap, &block::BitmapInfo::name) != bitmaps.end())
    co_return Result<void>{};
  if (store != nullptr) PLATTER_CO_TRY(co_await store->bitmap_bits(bitmap));
  co_return fail(ENOENT, fmt::format("Dirty bitmap '{}' not found", bitmap));
}

Result<void> add(const block::Node& node, const BitmapRequest& request) {
  if (request.bitmap.empty()) return fail(EINVAL, "Bitmap name cannot be empty");
  auto* store = node.driver().bitmap_store();
  if (store == nullptr) {
    return fail(
        ENOTSUP,
        fmt::format("Can't store persistent bitmaps to {}: Operation not supported", node.name()));
  }
  return store->add_bitmap(request.bitmap, request.granularity, /*enabled=*/true);
}

io::Task<Result<void>> merge(const block::Node& node, const std::string& bitmap,
                             const block::Node& source, const std::string& source_bitmap) {
  PLATTER_CO_TRY(co_await check_known(node, bitmap));
  PLATTER_CO_TRY(co_await check_known(source, source_bitmap));
  block::BitmapStore& store = *node.driver().bitmap_store();
  const auto bitmaps = store.bitmaps();
  const auto target = std::ranges::find(bitmaps, bitmap, &block::BitmapInfo::name);
  // Of two that cannot be used the target is the one to name.
  if (target->inconsistent) PLATTER_CO_TRY(co_await store.bitmap_bits(bitmap));
  PLATTER_CO_ASSIGN(const auto bits,
                    co_await source.driver().bitmap_store()->bitmap_bits(source_bitmap));
  co_return store.merge_bitmap(bitmap, *bits);
}

io::Task<Result<void>> act(const block::Node& node, const block::Node& source,
                           const GivenOption& action, const BitmapRequest& request) {
  if (action.is("add")) co_return add(node, request);
  if (action.is("merge")) co_return co_await merge(node, request.bitmap, source, action.value);
  PLATTER_CO_TRY(co_await check_known(node, request.bitmap));
  block::BitmapStore& store = *node.driver().bitmap_store();
  if (action.is("remove")) co_return store.remove_bitmap(request.bitmap);
  if (action.is("clear")) co_return store.clear_bitmap(request.bitmap);
  co_return store.enable_bitmap(request.bitmap, action.is("enable"));
}

// The first that fails ends it; what was done before it counts.
io::Task<Result<void>> act_all(block::Backend& image, block::Backend& source,
                               const BitmapRequest& request) {
  for (const GivenOption* action : request.actions) {
    auto done =
        co_await act(image.node().skip_filters(), source.node().skip_filters(), *action, request);
    if (done) continue;
    co_return std::unexpected(std::move(done).error().with_context(
        fmt::format("Operation {} on bitmap {} failed", action->option->name, request.bitmap)));
  }
  co_return Result<void>{};
}

io::Task<int> run_in(Session& session, const Invocation& invocation, ImageArgument image,
                     const BitmapRequest& request) {
  auto backend = co_await open_image(session, std::move(image));
  if (!backend) co_return invocation.fail(backend.error());
  std::unique_ptr<block::Backend> source;
  Result<void> done;
  if (request.source) {
    auto opened = co_await open_image(session, *request.source);
    if (opened) source = std::move(*opened);
    if (!opened) done = std::unexpected(std::move(opened).error());
  }
  if (done) done = co_await act_all(**backend, source ? *source : **backend, request);
  int status = done ? 0 : invocation.fail(done.error());
  for (auto* open : {&source, &*backend}) {
    if (!*open) continue;
    status = co_await close_image(invocation, **open, status);
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
    const auto granularity = parse_size_argument(invocation, "granularity", *text);
    if (!granularity) return 1;
    request.granularity = *granularity;
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
        .flags = {.read_only = true, .no_backing = true},
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
    .summary = "Change the dirty bitmaps of an image.",
    .operands = "FILE BITMAP",
    .options = kOptions,
    .run = run_bitmap,
};

}  // namespace platter::tool
