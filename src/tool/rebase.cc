// platter rebase: gives an overlay another backing file, or none, and keeps what it reads as.
//
// The overlay names the new backing file only when everything that it needs in its place is durable
// in it.
#include <algorithm>
#include <cerrno>

#include "base/try.h"
#include "block/registry.h"
#include "job/rebase_engine.h"
#include "tool/arguments.h"
#include "tool/backing_chain.h"
#include "tool/image_open.h"
#include "tool/long_work.h"
#include "tool/session.h"

namespace platter::tool {
namespace {

constexpr double kProgressStepPercent = 1.0;
constexpr unsigned kMinWorkers = 2;
constexpr unsigned kMaxWorkers = 8;

struct RebaseArguments {
  std::string name;
  bool image_opts = false;
  std::string format;
  std::optional<std::string> backing;
  std::string backing_format;
  block::CacheMode cache;
  block::CacheMode source_cache;
  bool unsafe = false;
  bool force_share = false;
  bool compressed = false;
  bool json = false;
  // A backing file that is to be there.
  bool has_new_backing() const { return backing && !backing->empty(); }
};

class Rebase {
 public:
  Rebase(Session& session, const Invocation& invocation, const RebaseArguments& arguments)
      : session_(session),
        invocation_(invocation),
        arguments_(arguments),
        work_(session, invocation, kProgressStepPercent) {
    work_.cancel_on_interrupt();
  }
  Rebase(const Rebase&) = delete;
  Rebase& operator=(const Rebase&) = delete;

  io::Task<int> run();

 private:
  io::Task<Result<void>> rebase();
  io::Task<Result<void>> open_overlay();
  io::Task<Result<void>> open_backings();
  Result<void> check_change() const;
  io::Task<Result<void>> copy_up();
  io::Task<Result<void>> change_header();
  io::Task<Result<void>> close_all();
  std::unexpected<Error> cannot_change(int code, const std::string& why) const {
    return fail(code, "Could not change the backing file to '" + arguments_.backing.value_or("") +
                          "': " + why);
  }

  Session& session_;
  const Invocation& invocation_;
  const RebaseArguments& arguments_;
  LongWork work_;
  base::Json result_;
  std::unique_ptr<block::Backend> overlay_;
  std::unique_ptr<block::Backend> old_backing_;
  std::unique_ptr<block::Backend> new_backing_;
  block::Node* common_ = nullptr;  // in the old chain: what new_backing_ is
};

io::Task<Result<void>> Rebase::open_overlay() {
  PLATTER_CO_ASSIGN(
      overlay_,
      co_await open_image(
          session_, {.name = arguments_.name,
                     .image_opts = arguments_.image_opts,
                     .format = arguments_.format,
                     .force_share = false,
                     .flags = {.read_only = false, .no_backing = arguments_.unsafe},
                     .cache = arguments_.cache,
                     .needed = block::Permission::kConsistentRead | block::Permission::kWrite}));
  if (!arguments_.backing_format.empty() &&
      session_.registry().find(arguments_.backing_format) == nullptr) {
    co_return fail(EINVAL, "Invalid format name: '" + arguments_.backing_format + "'");
  }
  co_return Result<void>{};
}

io::Task<Result<void>> Rebase::open_backings() {
  block::Node& node = overlay_->node();
  const block::Permissions shared =
      block::Permission::kConsistentRead | block::Permission::kWriteUnchanged;
  if (node.backing() != nullptr) {
    PLATTER_CO_ASSIGN(old_backing_,
                      co_await session_.graph().attach(node.backing()->node(),
                                                       block::Permission::kConsistentRead, shared));
  }
  if (!arguments_.has_new_backing()) co_return Result<void>{};
  const std::string& name = *arguments_.backing;
  common_ = find_in_chain(node, name);
  if (common_ != nullptr &&
      (arguments_.backing_format.empty() || common_->type().name == arguments_.backing_format)) {
    PLATTER_CO_ASSIGN(new_backing_, co_await session_.graph().attach(
                                        *common_, block::Permission::kConsistentRead, shared));
    co_return Result<void>{};
  }
  common_ = nullptr;
  auto path = block::resolve_backing_name(node, name);
  if (!path) co_return std::unexpected(std::move(path).error());
  ImageArgument image{.name = *path,
                      .format = arguments_.backing_format,
                      .force_share = arguments_.force_share,
                      .flags = {.read_only = true},
                      .cache = arguments_.source_cache};
  if (!arguments_.force_share) image.shared = shared;
  auto opened = co_await open_image(session_, std::move(image));
  if (!opened) {
    // Its own message begins with the same words about the name that was resolved.
    std::string why = opened.error().message();
    const std::string prefix = "Could not open '" + *path + "': ";
    if (why.starts_with(prefix)) why.erase(0, prefix.size());
    co_return std::unexpected(
        Error(opened.error().code(), "Could not open new backing file '" + name + "': " + why)
            .with_hint(opened.error().hint()));
  }
  new_backing_ = std::move(*opened);
  co_return Result<void>{};
}

// What can be known to fail fails before anything is copied.
Result<void> Rebase::check_change() const {
  if (arguments_.has_new_backing() && arguments_.backing_format.empty())
    return cannot_change(EINVAL, "backing format must be specified");
  if (overlay_->node().driver().rebasable() == nullptr)
    return cannot_change(ENOTSUP, Error::from_errno(ENOTSUP).message());
  return {};
}

io::Task<Result<void>> Rebase::copy_up() {
  const auto reactors = session_.all_reactors();
  job::RebaseOptions options;
  options.overlay = overlay_.get();
  options.old_backing = old_backing_.get();
  options.new_backing = new_backing_.get();
  options.common = common_;
  options.reactors = reactors;
  options.compressed = arguments_.compressed;
  options.workers = std::clamp(session_.reactors().size() * 2, kMinWorkers, kMaxWorkers);
  options.cancel = work_.token();
  options.progress = work_.progress_sink();
  PLATTER_CO_TRY(co_await job::rebase(std::move(options)));
  co_return co_await overlay_->flush();
}

io::Task<Result<void>> Rebase::change_header() {
  PLATTER_CO_TRY(work_.token().check());
  block::Node& node = overlay_->node();
  co_await session_.graph().drained_begin(node);
  auto changed = co_await node.driver().rebasable()->change_backing_reference(
      {.filename = arguments_.backing.value_or(""), .format = arguments_.backing_format});
  session_.graph().drained_end(node);
  if (changed) co_return changed;
  const int code = changed.error().code();
  const bool header_is_full = code == ENOSPC && !says_only_why(changed.error());
  co_return cannot_change(code, header_is_full ? "No space left in the file header"
                                               : Error::from_errno(code).message());
}

io::Task<Result<void>> Rebase::rebase() {
  PLATTER_CO_TRY(co_await open_overlay());
  if (!arguments_.unsafe) PLATTER_CO_TRY(co_await open_backings());
  PLATTER_CO_TRY(check_change());
  if (arguments_.compressed && overlay_->limits().compressed_alignment == 0)
    co_return fail(ENOTSUP, "Compression not supported for this file format");
  if (arguments_.unsafe) {
    work_.progress().update(0, 1);
  } else {
    PLATTER_CO_TRY(co_await copy_up());
  }
  PLATTER_CO_TRY(co_await change_header());
  result_ = describe_image(arguments_.name, *overlay_);
  result_.add("backing-filename",
              arguments_.has_new_backing() ? base::Json(*arguments_.backing) : base::Json());
  if (arguments_.has_new_backing())
    result_.add("backing-filename-format", arguments_.backing_format);
  co_return Result<void>{};
}

io::Task<Result<void>> Rebase::close_all() {
  Result<void> first;
  for (auto* backend : {&new_backing_, &old_backing_, &overlay_}) {
    if (!*backend) continue;
    auto closed = co_await (*backend)->close();
    if (!closed && first) first = std::move(closed);
  }
  co_return first;
}

io::Task<int> Rebase::run() {
  auto done = co_await rebase();
  auto closed = co_await close_all();
  if (done && !closed) done = std::move(closed);
  if (!done) done = std::unexpected(explain(std::move(done).error(), "rebase", arguments_.name));
  const int status =
      work_.finish(done, "'" + arguments_.name + "' reads as before, with its old backing file");
  if (status == 0 && arguments_.json) invocation_.console.print(result_.dump_pretty() + "\n");
  co_return status;
}

io::Task<int> run_in(Session& session, const Invocation& invocation,
                     const RebaseArguments& arguments) {
  Rebase rebase(session, invocation, arguments);
  co_return co_await rebase.run();
}

int run_rebase(Invocation& invocation) {
  RebaseArguments arguments;
  if (invocation.operands.size() != 1)
    return invocation.usage_error("Expecting one image file name");
  arguments.unsafe = invocation.has("u");
  arguments.backing = invocation.value("b");
  if (!arguments.unsafe && !arguments.backing) {
    return invocation.usage_error("Must specify backing file (-b) or use unsafe mode (-u)");
  }
  if (auto checked = check_common_options(invocation); !checked)
    return invocation.fail(checked.error());
  auto cache = block::CacheMode::parse(invocation.value_or("t", "writeback"));
  if (!cache) return invocation.fail("Invalid cache option: " + *invocation.value("t"));
  auto source_cache = block::CacheMode::parse(invocation.value_or("T", "writeback"));
  if (!source_cache)
    return invocation.fail("Invalid source cache option: " + *invocation.value("T"));
  arguments.cache = *cache;
  arguments.source_cache = *source_cache;
  arguments.name = invocation.operands[0];
  arguments.image_opts = invocation.has("image-opts");
  arguments.format = invocation.value_or("f", "");
  arguments.backing_format = invocation.value_or("F", "");
  arguments.force_share = invocation.has("force-share");
  arguments.compressed = invocation.has("compress");
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
    {.letter = 'U',
     .name = "force-share",
     .help = "open the new backing file even while somebody writes to it"},
    {.letter = 'q', .help = "print nothing but errors"},
    {.letter = 'f', .argument = "FMT", .help = "format of FILE (default: found out)"},
    {.letter = 't', .argument = "CACHE", .help = "cache mode of FILE (default: writeback)"},
    {.letter = 'T',
     .argument = "CACHE",
     .help = "cache mode of the new backing file (default: writeback)"},
    {.letter = 'p', .help = "show progress"},
    {.letter = 'u', .help = "unsafe: change the name and nothing else"},
    {.letter = 'c', .name = "compress", .help = "write compressed what is copied into FILE"},
    {.letter = 'b', .argument = "BACKING", .help = "the new backing file; '': none"},
    {.letter = 'F', .argument = "FMT", .help = "format of the new backing file"},
    {.name = "output", .argument = "FORM", .help = "human or json", .native = true},
};

}  // namespace

extern const Command kRebaseCommand;
const Command kRebaseCommand = {
    .name = "rebase",
    .summary = "Give an overlay another backing file, or none.",
    .operands = "FILE",
    .options = kOptions,
    .run = run_rebase,
};

}  // namespace platter::tool
