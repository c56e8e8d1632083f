// platter create: makes a new image.
#include "base/try.h"
#include "tool/arguments.h"
#include "tool/command.h"
#include "tool/create_image.h"
#include "tool/image_open.h"
#include "tool/session.h"

namespace platter::tool {
namespace {

// What has been made, as it now is.
io::Task<Result<void>> describe(Session& session, ImageArgument made) {
  const std::string name = made.name;
  PLATTER_CO_ASSIGN(auto backend, co_await open_image(session, std::move(made)));
  const auto json = describe_image(name, *backend);
  PLATTER_CO_TRY(co_await backend->close());
  session.console().print(json.dump_pretty() + "\n");
  co_return Result<void>{};
}

io::Task<int> run_in(Session& session, const Invocation& invocation, NewImage image, bool json) {
  ImageArgument made = {.name = image.filename,
                        .format = image.format,
                        .flags = {.read_only = true, .no_io = true, .no_backing = true},
                        .cache = {}};
  auto created = co_await create_image(session, std::move(image));
  if (!created) co_return invocation.fail(created.error());
  if (!json) co_return 0;
  auto told = co_await describe(session, std::move(made));
  if (!told) co_return invocation.fail(told.error());
  co_return 0;
}

int run_create(Invocation& invocation) {
  auto option_list = join_option_lists(invocation);
  if (!option_list) return invocation.fail(option_list.error());
  NewImage image = {
      .filename = invocation.operands.empty() ? "" : invocation.operands[0],
      .format = invocation.value_or("f", "raw"),
      .option_list = *option_list,
      .size = std::nullopt,
      .backing_file = invocation.value("b"),
      .backing_format = invocation.value("F"),
      .backing_unchecked = invocation.has("u"),
      .quiet = invocation.has("q"),
  };
  const auto json = json_output(invocation);
  if (!json) return invocation.fail(json.error());
  if (*json) image.quiet = true;
  if (asks_for_help(image.option_list)) {
    auto help = create_option_help(block::DriverRegistry::builtin(), image.format, image.filename);
    if (!help) return invocation.fail(help.error());
    invocation.console.print(*help);
    return 0;
  }
  if (invocation.operands.empty()) return invocation.usage_error("Expecting image file name");
  if (invocation.operands.size() > 1) {
    image.size = parse_size_argument(invocation, "image size", invocation.operands[1]);
    if (!image.size) return 1;
  }
  if (invocation.operands.size() > 2) {
    return invocation.usage_error("Unexpected argument: " + invocation.operands[2]);
  }
  if (auto checked = check_common_options(invocation); !checked)
    return invocation.fail(checked.error());
  return run_session(invocation,
                     [&](Session& session) { return run_in(session, invocation, image, *json); });
}

constexpr CommandOption kOptions[] = {
    {.name = "object", .argument = "OBJECT", .help = "define a secret or credentials"},
    {.letter = 'q', .help = "say nothing but errors"},
    {.letter = 'f', .argument = "FMT", .help = "format of the new image (default: raw)"},
    {.letter = 'b', .argument = "BACKING", .help = "image that it is to be based on"},
    {.letter = 'F', .argument = "FMT", .help = "format of BACKING"},
    {.name = "output", .argument = "FORM", .help = "human or json", .native = true},
    {.letter = 'u', .help = "do not look at BACKING: it need not exist"},
    {.letter = 'o', .argument = "OPTIONS", .help = "options of the format; '-o help' lists them"},
};

}  // namespace

extern const Command kCreateCommand;
const Command kCreateCommand = {
    .name = "create",
    .summary = "Make a new image.",
    .operands = "FILE [SIZE]",
    .options = kOptions,
    .run = run_create,
};

}  // namespace platter::tool
