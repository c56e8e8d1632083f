// platter resize: makes an image larger or smaller.
#include <cerrno>
#include <utility>

#include "base/math.h"
#include "base/size.h"
#include "base/try.h"
#include "tool/arguments.h"
#include "tool/command.h"
#include "tool/image_open.h"
#include "tool/session.h"

namespace platter::tool {
namespace {

struct SizeChange {
  char sign = 0;  // '+', '-', or 0: absolute
  uint64_t amount = 0;
};

Result<SizeChange> parse_change(std::string_view text) {
  SizeChange change;
  if (!text.empty() && (text[0] == '+' || text[0] == '-')) {
    change.sign = text[0];
    text.remove_prefix(1);
  }
  auto amount = base::parse_size(text);
  if (!amount) {
    return std::unexpected(
        Error(amount.error().code(), "Parameter 'size' expects a non-negative number below 2^64")
            .with_hint(
                "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n"
                "and exabytes, respectively."));
  }
  change.amount = *amount;
  return change;
}

Result<uint64_t> changed_size(uint64_t current, SizeChange change) {
  uint64_t size = change.amount;
  if (change.sign == '-') {
    size = change.amount < current ? current - change.amount : 0;
  } else if (change.sign == '+') {
    size = base::checked_add(current, change.amount).value_or(0);
  }
  if (size == 0) return fail(EINVAL, "New image size must be positive");
  return size;
}

struct ResizeRequest {
  SizeChange change;
  block::Preallocation preallocation = block::Preallocation::kOff;
  bool shrink = false;
  bool quiet = false;
  bool json = false;
};

io::Task<int> resize_backend(const Invocation& invocation, block::Backend& backend,
                             ResizeRequest request) {
  const uint64_t current = backend.size();
  auto size = changed_size(current, request.change);
  if (!size) co_return invocation.fail(size.error());
  if (*size <= current && request.preallocation != block::Preallocation::kOff) {
    co_return invocation.fail("Preallocation can only be used for growing images");
  }
  if (*size < current && !request.shrink) {
    invocation.console.error("Use the --shrink option to perform a shrink operation.");
    invocation.console.warning(
        "Shrinking an image will delete all data beyond the shrunken image's end. "
        "Before performing such an operation, make sure there is no important data there.");
    co_return 1;
  }
  auto resized = co_await backend.resize(*size, request.preallocation, /*exact=*/true);
  if (!resized) {
    co_return invocation.fail(
        explain(std::move(resized).error(), "resize", backend.node().filename()));
  }
  co_return 0;
}

void say_done(const Invocation& invocation, const ResizeRequest& request, uint64_t before,
              uint64_t after) {
  if (request.json) {
    auto json = base::Json::object();
    json.add("filename", invocation.operands[0]);
    json.add("virtual-size", after);
    json.add("virtual-size-before", before);
    invocation.console.print(json.dump_pretty() + "\n");
  } else if (!request.quiet) {
    invocation.console.print("Image resized.\n");
  }
}

io::Task<int> run_in(Session& session, const Invocation& invocation, ImageArgument image,
                     ResizeRequest request) {
  auto backend = co_await open_image(session, std::move(image));
  if (!backend) co_return invocation.fail(backend.error());
  const uint64_t before = (*backend)->size();
  int status = co_await resize_backend(invocation, **backend, request);
  const uint64_t after = (*backend)->size();
  status = co_await close_image(invocation, **backend, status);
  if (status == 0) say_done(invocation, request, before, after);
  co_return status;
}

int run_resize(Invocation& invocation) {
  ResizeRequest request = {.change = {},
                           .preallocation = block::Preallocation::kOff,
                           .shrink = invocation.has("shrink"),
                           .quiet = invocation.has("q")};
  auto preallocation = parse_preallocation(invocation.value_or("preallocation", "off"));
  if (!preallocation) return invocation.fail(preallocation.error());
  request.preallocation = *preallocation;
  if (invocation.operands.size() != 2)
    return invocation.usage_error("Expecting image file name and size");
  auto change = parse_change(invocation.operands[1]);
  if (!change) return invocation.fail(change.error());
  request.change = *change;
  const auto json = json_output(invocation);
  if (!json) return invocation.fail(json.error());
  request.json = *json;
  if (auto checked = check_common_options(invocation); !checked)
    return invocation.fail(checked.error());
  ImageArgument image = {
      .name = invocation.operands[0],
      .image_opts = invocation.has("image-opts"),
      .format = invocation.value_or("f", ""),
      .force_share = false,
      .flags = {.read_only = false},
      .cache = {},
      .needed = block::Permission::kConsistentRead | block::Permission::kWrite |
                block::Permission::kResize,
  };
  return run_session(invocation,
                     [&](Session& session) { return run_in(session, invocation, image, request); });
}

constexpr CommandOption kOptions[] = {
    {.name = "object", .argument = "OBJECT", .help = "define a secret or credentials"},
    {.name = "image-opts", .help = "FILE is a list of options, not a file name"},
    {.letter = 'f', .argument = "FMT", .help = "format of the image (default: found out)"},
    {.name = "preallocation",
     .argument = "MODE",
     .help = "what growing reserves: off, metadata, falloc or full"},
    {.name = "output", .argument = "FORM", .help = "human or json", .native = true},
    {.letter = 'q', .help = "say nothing but errors"},
    {.name = "shrink", .help = "allow the image to become smaller: what lies beyond is lost"},
};

}  // namespace

extern const Command kResizeCommand;
const Command kResizeCommand = {
    .name = "resize",
    .summary = "Make an image larger or smaller.",
    .operands = "FILE [+|-]SIZE",
    .options = kOptions,
    .run = run_resize,
    .last_word_is_operand = true,
};

}  // namespace platter::tool
