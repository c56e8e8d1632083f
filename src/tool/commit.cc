// platter commit: writes what an overlay holds into an image below it, and empties the overlay.
//
// The order keeps the chain readable at every instant: the base is written and durable before the
// overlay lets go of anything.
#include <algorithm>
#include <cerrno>

#include "base/try.h"
#include "job/copy_engine.h"
#include "tool/arguments.h"
#include "tool/backing_chain.h"
#include "tool/image_open.h"
#include "tool/long_work.h"
#include "tool/session.h"

namespace platter::tool {
namespace {

constexpr double kProgressStepPercent = 1.0;
constexpr unsigned kMinWorkers = 2;
constexpr unsigned kMaxWorkers = 4;

struct CommitArguments {
  std::string name;
  bool image_opts = false;
  std::string format;
  std::optional<std::string> base;
  block::CacheMode cache;
  uint64_t bytes_per_second = 0;
  bool drop = false;  // the overlay is not needed any more: do not empty it
  bool quiet = false;
  bool json = false;
};

constexpr block::Permissions kMayGrow =
    block::Permission::kConsistentRead | block::Permission::kWrite | block::Permission::kResize;

class Commit {
 public:
  Commit(Session& session, const Invocation& invocation, const CommitArguments& arguments)
      : session_(session),
        invocation_(invocation),
        arguments_(arguments),
        work_(session, invocation, kProgressStepPercent) {
    work_.cancel_on_interrupt();
  }
  Commit(const Commit&) = delete;
  Commit& operator=(const Commit&) = delete;

  io::Task<int> run();

 private:
  ImageArgument overlay_argument() const;
  io::Task<Result<void>> commit();
  io::Task<Result<void>> open_chain();
  io::Task<Result<void>> open_layer(const block::Node& node, bool base);
  io::Task<Result<void>> copy_down();
  io::Task<Result<bool>> empty_overlay();  // whether it was to be, and could be
  io::Task<Result<void>> close_all();

  Session& session_;
  const Invocation& invocation_;
  const CommitArguments& arguments_;
  LongWork work_;
  base::Json result_;
  // The overlay and what lies between it and the base: each by itself, so that it is locked.
  std::unique_ptr<block::Backend> overlay_;
  std::vector<std::unique_ptr<block::Backend>> between_;
  std::unique_ptr<block::Backend> base_;
  // The whole chain, to read from. What it would read from the base is not asked for: the base that
  // is written to is another opening of the same file.
  std::unique_ptr<block::Backend> chain_;
  block::Node* base_in_chain_ = nullptr;
};

ImageArgument Commit::overlay_argument() const {
  return {.name = arguments_.name,
          .image_opts = arguments_.image_opts,
          .format = arguments_.format,
          .force_share = false,
          .flags = {},
          .cache = arguments_.cache};
}

// A layer of the chain by itself.
io::Task<Result<void>> Commit::open_layer(const block::Node& node, bool base) {
  ImageArgument image{
      .name = node.filename(),
      .format = node.filename().starts_with("json:") ? "" : std::string(node.type().name),
      .force_share = false,
      .flags = {.read_only = !base, .no_backing = !base},
      .cache = arguments_.cache};
  if (base) {
    image.discard_unmap = true;
    image.needed = kMayGrow;
    PLATTER_CO_ASSIGN(base_, co_await open_image(session_, std::move(image)));
  } else {
    image.shared = block::Permission::kConsistentRead | block::Permission::kWriteUnchanged;
    PLATTER_CO_ASSIGN(auto layer, co_await open_image(session_, std::move(image)));
    between_.push_back(std::move(layer));
  }
  co_return Result<void>{};
}

io::Task<Result<void>> Commit::open_chain() {
  ImageArgument whole = overlay_argument();
  whole.flags.read_only = true;
  whole.force_share = true;
  PLATTER_CO_ASSIGN(chain_, co_await open_image(session_, std::move(whole)));
  const block::Node& top = chain_->node();
  if (top.backing() == nullptr) co_return fail(EINVAL, "Image does not have a backing file");
  base_in_chain_ = arguments_.base ? find_in_chain(top, *arguments_.base)
                                   : &top.backing()->node().skip_filters();
  if (base_in_chain_ == nullptr) {
    co_return fail(EINVAL, "Did not find '" + *arguments_.base + "' in the backing chain of '" +
                               arguments_.name + "'");
  }
  ImageArgument overlay = overlay_argument();
  overlay.flags.no_backing = true;
  overlay.flags.read_only = false;
  overlay.discard_unmap = true;
  overlay.needed = kMayGrow;
  PLATTER_CO_ASSIGN(overlay_, co_await open_image(session_, std::move(overlay)));
  for (const block::Node* node = &top.backing()->node().skip_filters(); node != base_in_chain_;
       node = &node->backing()->node().skip_filters()) {
    PLATTER_CO_TRY(co_await open_layer(*node, /*base=*/false));
  }
  co_return co_await open_layer(*base_in_chain_, /*base=*/true);
}

io::Task<Result<void>> Commit::copy_down() {
  if (base_->size() < chain_->size()) {
    PLATTER_CO_TRY(
        co_await base_->resize(chain_->size(), block::Preallocation::kOff, /*exact=*/true));
  }
  const auto reactors = session_.all_reactors();
  job::CopyOptions options;
  options.sources.push_back({chain_.get(), base_in_chain_});
  options.target = base_.get();
  options.target_backing_size = base_->size();
  options.reactors = reactors;
  options.workers = std::clamp(session_.reactors().size(), kMinWorkers, kMaxWorkers);
  options.bytes_per_second = arguments_.bytes_per_second;
  options.cancel = work_.token();
  options.count_beforehand = choose_progress_style(invocation_) != ProgressStyle::kNone;
  options.progress = work_.progress_sink();
  PLATTER_CO_TRY(co_await job::copy(std::move(options)));
  co_return co_await base_->flush();
}

io::Task<Result<bool>> Commit::empty_overlay() {
  if (arguments_.drop || arguments_.base) co_return false;
  block::Node& node = overlay_->node();
  block::Emptiable* emptiable = node.driver().emptiable();
  if (emptiable == nullptr) co_return false;
  // It has read tables that are about to change.
  auto closed = co_await std::exchange(chain_, nullptr)->close();
  PLATTER_CO_TRY(std::move(closed));
  co_await session_.graph().drained_begin(node);
  auto emptied = co_await emptiable->make_empty();
  session_.graph().drained_end(node);
  if (!emptied) {
    co_return std::unexpected(
        std::move(emptied).error().with_context("Could not empty '" + arguments_.name + "'"));
  }
  co_return true;
}

io::Task<Result<void>> Commit::commit() {
  PLATTER_CO_TRY(co_await open_chain());
  PLATTER_CO_TRY(co_await copy_down());
  result_ = describe_image(arguments_.name, *overlay_);
  result_.add("base", base_in_chain_->filename());
  result_.add("base-virtual-size", base_->size());
  PLATTER_CO_ASSIGN(const bool emptied, co_await empty_overlay());
  result_.add("emptied", emptied);
  co_return Result<void>{};
}

io::Task<Result<void>> Commit::close_all() {
  Result<void> first;
  const auto keep = [&first](Result<void> closed) {
    if (!closed && first) first = std::move(closed);
  };
  if (base_) keep(co_await base_->close());
  if (chain_) keep(co_await chain_->close());
  for (auto& layer : between_) keep(co_await layer->close());
  if (overlay_) keep(co_await overlay_->close());
  co_return first;
}

io::Task<int> Commit::run() {
  auto done = co_await commit();
  auto closed = co_await close_all();
  if (done && !closed) done = std::move(closed);
  if (!done) done = std::unexpected(explain(std::move(done).error(), "commit", arguments_.name));
  const int status = work_.finish(
      done, "'" + arguments_.name + "' is unchanged; what was committed so far is in its base too");
  if (status == 0 && arguments_.json) {
    invocation_.console.print(result_.dump_pretty() + "\n");
  } else if (status == 0 && !arguments_.quiet)
    invocation_.console.print("Image committed.\n");
  co_return status;
}

io::Task<int> run_in(Session& session, const Invocation& invocation,
                     const CommitArguments& arguments) {
  Commit commit(session, invocation, arguments);
  co_return co_await commit.run();
}

int run_commit(Invocation& invocation) {
  CommitArguments arguments;
  if (auto text = invocation.value("r")) {
    auto rate = parse_size_argument(invocation, "rate limit", *text);
    if (!rate) return 1;
    arguments.bytes_per_second = *rate;
  }
  if (invocation.operands.size() != 1)
    return invocation.usage_error("Expecting one image file name");
  if (auto checked = check_common_options(invocation); !checked)
    return invocation.fail(checked.error());
  auto cache = block::CacheMode::parse(invocation.value_or("t", "writeback"));
  if (!cache) return invocation.fail("Invalid cache option: " + *invocation.value("t"));
  arguments.cache = *cache;
  arguments.name = invocation.operands[0];
  arguments.image_opts = invocation.has("image-opts");
  arguments.format = invocation.value_or("f", "");
  arguments.base = invocation.value("b");
  arguments.drop = invocation.has("d");
  arguments.quiet = invocation.has("q");
  const auto json = json_output(invocation);
  if (!json) return invocation.fail(json.error());
  arguments.json = *json;
  return run_session(
      invocation, [&](Session& session) { return run_in(session, invocation, arguments); },
      Reactors::kOneAProcessor);
}

constexpr CommandOption kOptions[] = {
    {.name = "object", .argument = "OBJECT", .help = "define a secret or credentials"},
    {.name = "image-opts", .help = "FILE is a list of options, not a file name"},
    {.letter = 'q', .help = "print nothing but errors"},
    {.letter = 'f', .argument = "FMT", .help = "format of FILE (default: found out)"},
    {.letter = 't', .argument = "CACHE", .help = "cache mode (default: writeback)"},
    {.letter = 'b',
     .argument = "BASE",
     .help = "the image of the chain to commit to (default: the one below FILE); implies -d"},
    {.letter = 'r', .argument = "RATE", .help = "write at most this many bytes a second"},
    {.letter = 'd', .help = "do not empty FILE afterwards"},
    {.letter = 'p', .help = "show progress"},
    {.name = "output", .argument = "FORM", .help = "human or json", .native = true},
};

}  // namespace

extern const Command kCommitCommand;
const Command kCommitCommand = {
    .name = "commit",
    .summary = "Write what an overlay holds into its backing file.",
    .operands = "FILE",
    .options = kOptions,
    .run = run_commit,
};

}  // namespace platter::tool
