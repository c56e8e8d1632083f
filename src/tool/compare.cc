// platter compare: whether two images have the same content.
#include "job/compare_engine.h"

#include "fmt/format.h"
#include "tool/arguments.h"
#include "tool/image_open.h"
#include "tool/long_work.h"
#include "tool/session.h"

namespace platter::tool {
namespace {

constexpr double kProgressStepPercent = 2.0;

// The exit statuses that scripts know.
constexpr int kIdentical = 0;
constexpr int kDifferent = 1;
constexpr int kCannotOpen = 2;
constexpr int kStatusFailed = 3;
constexpr int kReadFailed = 4;

struct CompareArguments {
  std::string names[2];
  std::string formats[2];
  block::CacheMode cache;
  bool json = false;
};

class Comparing {
 public:
  Comparing(Session& session, const Invocation& invocation, const CompareArguments& arguments)
      : session_(session),
        invocation_(invocation),
        arguments_(arguments),
        work_(session, invocation, kProgressStepPercent) {
    work_.cancel_on_interrupt();
  }
  Comparing(const Comparing&) = delete;
  Comparing& operator=(const Comparing&) = delete;

  io::Task<int> run();

 private:
  io::Task<int> open_and_compare();
  io::Task<int> compare();
  int tell(job::CompareOutcome outcome);
  void say(std::string_view text) {
    if (!invocation_.has("q") && !arguments_.json) invocation_.console.print(text);
  }
  void say_in_json(std::string_view difference, std::optional<uint64_t> offset);

  Session& session_;
  const Invocation& invocation_;
  const CompareArguments& arguments_;
  LongWork work_;
  std::unique_ptr<block::Backend> images_[2];
};

// The verdict for a program; `difference` is empty where there is none.
void Comparing::say_in_json(std::string_view difference, std::optional<uint64_t> offset) {
  if (!arguments_.json) return;
  auto json = base::Json::object();
  json.add("identical", difference.empty());
  json.add("sizes", base::Json::Array{images_[0]->size(), images_[1]->size()});
  if (!difference.empty()) json.add("difference", difference);
  if (offset) json.add("offset", *offset);
  invocation_.console.print(json.dump_pretty() + "\n");
}

int Comparing::tell(job::CompareOutcome outcome) {
  using Kind = job::CompareOutcome::Kind;
  work_.progress().hide();
  const uint64_t common = std::min(images_[0]->size(), images_[1]->size());
  const bool sizes_differ = images_[0]->size() != images_[1]->size();
  if (sizes_differ && (outcome.kind == Kind::kIdentical || outcome.offset >= common)) {
    say("Warning: Image size mismatch!\n");
  }
  const std::string& name = arguments_.names[outcome.image];
  switch (outcome.kind) {
    case Kind::kIdentical:
      say("Images are identical.\n");
      say_in_json({}, std::nullopt);
      return kIdentical;
    case Kind::kContentDiffers:
      say(fmt::format("Content mismatch at offset {}!\n", outcome.offset));
      say_in_json("content", outcome.offset);
      return kDifferent;
    case Kind::kStatusDiffers:
      say(fmt::format("Strict mode: Offset {} block status mismatch!\n", outcome.offset));
      say_in_json("allocation", outcome.offset);
      return kDifferent;
    case Kind::kStatusFailed:
      invocation_.console.error(
          std::move(*outcome.error).with_context("Sector allocation test failed for " + name));
      return kStatusFailed;
    case Kind::kReadFailed:
      invocation_.console.error(std::move(*outcome.error)
                                    .with_context(fmt::format("Error while reading offset {} of {}",
                                                              outcome.offset, name)));
      return kReadFailed;
    case Kind::kCancelled: break;
  }
  return kReadFailed;
}

io::Task<int> Comparing::compare() {
  const bool strict = invocation_.has("s");
  if (strict && images_[0]->size() != images_[1]->size()) {
    say("Strict mode: Image size mismatch!\n");
    say_in_json("size", std::nullopt);
    co_return kDifferent;
  }
  const auto reactors = session_.all_reactors();
  job::CompareOptions options;
  options.images[0] = images_[0].get();
  options.images[1] = images_[1].get();
  options.reactors = reactors;
  options.strict = strict;
  options.cancel = work_.token();
  options.progress = work_.progress_sink();
  co_return tell(co_await job::compare(std::move(options)));
}

io::Task<int> Comparing::open_and_compare() {
  for (unsigned image = 0; image < 2; ++image) {
    auto backend = co_await open_image(session_, {.name = arguments_.names[image],
                                                  .image_opts = invocation_.has("image-opts"),
                                                  .format = arguments_.formats[image],
                                                  .force_share = invocation_.has("force-share"),
                                                  .flags = {.read_only = true},
                                                  .cache = arguments_.cache});
    if (!backend) {
      invocation_.console.error(backend.error());
      co_return kCannotOpen;
    }
    images_[image] = std::move(*backend);
  }
  co_return co_await compare();
}

io::Task<int> Comparing::run() {
  int status = co_await open_and_compare();
  work_.progress().finish();
  for (auto& image : images_) {
    if (!image) continue;
    auto closed = co_await image->close();
    if (closed || status != kIdentical) continue;
    invocation_.console.error(closed.error());
    status = kReadFailed;
  }
  co_return status;
}

io::Task<int> run_comparing(Session& session, const Invocation& invocation,
                            const CompareArguments& arguments) {
  Comparing comparing(session, invocation, arguments);
  co_return co_await comparing.run();
}

int run_compare(Invocation& invocation) {
  CompareArguments arguments;
  if (invocation.operands.size() != 2)
    return invocation.usage_error("Expecting two image file names");
  arguments.names[0] = invocation.operands[0];
  arguments.names[1] = invocation.operands[1];
  arguments.formats[0] = invocation.value_or("f", "");
  arguments.formats[1] = invocation.value_or("F", "");
  if (invocation.has("image-opts") && (invocation.has("f") || invocation.has("F"))) {
    invocation.console.error("--image-opts and --format are mutually exclusive");
    return kCannotOpen;
  }
  if (auto common = check_common_options(invocation); !common) {
    invocation.console.error(common.error());
    return kCannotOpen;
  }
  auto cache = block::CacheMode::parse(invocation.value_or("T", "writeback"));
  if (!cache) {
    invocation.console.error("Invalid source cache option: " + *invocation.value("T"));
    return kCannotOpen;
  }
  arguments.cache = *cache;
  const auto json = json_output(invocation);
  if (!json) {
    invocation.console.error(json.error());
    return kCannotOpen;
  }
  arguments.json = *json;
  return run_session(
      invocation, [&](Session& session) { return run_comparing(session, invocation, arguments); },
      Reactors::kOneAProcessor);
}

constexpr CommandOption kOptions[] = {
    {.name = "object", .argument = "OBJECT", .help = "define a secret or credentials"},
    {.name = "image-opts", .help = "the images are lists of options, not file names"},
    {.letter = 'f', .argument = "FMT", .help = "format of the first image (default: found out)"},
    {.letter = 'F', .argument = "FMT", .help = "format of the second image (default: found out)"},
    {.letter = 'T', .argument = "CACHE", .help = "cache mode of both (default: writeback)"},
    {.name = "output", .argument = "FORM", .help = "human or json", .native = true},
    {.letter = 'p', .help = "show progress"},
    {.letter = 'q', .help = "print nothing but errors"},
    {.letter = 's', .help = "strict: sizes and allocation must be the same too"},
    {.letter = 'U', .name = "force-share", .help = "open them even while somebody writes to them"},
};

constexpr ExitMeaning kExitMeanings[] = {
    {kIdentical, "the images are identical"},
    {kDifferent, "they differ"},
    {kCannotOpen, "an image could not be opened"},
    {kStatusFailed, "what is allocated could not be read"},
    {kReadFailed, "data could not be read"},
};

}  // namespace

extern const Command kCompareCommand;
const Command kCompareCommand = {
    .name = "compare",
    .summary = "Tell whether two images have the same content.",
    .operands = "FILE1 FILE2",
    .options = kOptions,
    .run = run_compare,
    .object_error_status = kCannotOpen,
    .exit_statuses = kExitMeanings,
};

}  // namespace platter::tool
