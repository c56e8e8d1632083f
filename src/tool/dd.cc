// platter dd: copies blocks of an image into a new one.
#include <algorithm>
#include <cerrno>

#include "base/math.h"
#include "base/size.h"
#include "base/try.h"
#include "fmt/format.h"
#include "job/copy_engine.h"
#include "tool/arguments.h"
#include "tool/command.h"
#include "tool/create_image.h"
#include "tool/image_open.h"
#include "tool/session.h"

namespace platter::tool {
namespace {

constexpr uint64_t kSectorBytes = 512;
constexpr uint64_t kMaxBlockBytes = INT32_MAX;

struct DdArguments {
  std::optional<std::string> input;
  std::optional<std::string> output;
  uint64_t block_bytes = 512;
  std::optional<uint64_t> count;  // in blocks, as is `skip`
  uint64_t skip = 0;
  ImageArgument source;
  std::string target_format;
  bool json = false;
};

// Blocks in bytes; more than any image has where that is too much to count.
uint64_t blocks_to_bytes(uint64_t blocks, uint64_t block_bytes) {
  return base::checked_mul(blocks, block_bytes).value_or(UINT64_MAX);
}

class Copying {
 public:
  Copying(Session& session, const Invocation& invocation, const DdArguments& arguments)
      : session_(session), invocation_(invocation), arguments_(arguments) {}
  Copying(const Copying&) = delete;
  Copying& operator=(const Copying&) = delete;

  io::Task<int> run();

 private:
  io::Task<Result<void>> copy();
  void choose_range();
  io::Task<Result<void>> create_target();
  io::Task<Result<void>> open_target();
  io::Task<Result<void>> copy_sectors(uint64_t bytes);
  io::Task<Result<void>> copy_tail(uint64_t offset, uint64_t bytes);
  io::Task<Result<void>> close_all();

  Session& session_;
  const Invocation& invocation_;
  const DdArguments& arguments_;
  std::unique_ptr<block::Backend> source_;
  std::unique_ptr<block::Backend> window_;  // the part of the source that is copied
  std::unique_ptr<block::Backend> target_;
  std::optional<HalfMadeFile> half_made_;
  uint64_t begin_ = 0;  // of what is copied, in the source
  uint64_t length_ = 0;
  bool skipped_all_ = false;
  base::Json result_;
};

void Copying::choose_range() {
  const uint64_t block = arguments_.block_bytes;
  uint64_t end = source_->size();
  if (arguments_.count) end = std::min(end, blocks_to_bytes(*arguments_.count, block));
  begin_ = blocks_to_bytes(arguments_.skip, block);
  skipped_all_ = begin_ > end;
  length_ = skipped_all_ ? 0 : end - begin_;
}

io::Task<Result<void>> Copying::create_target() {
  if (session_.registry().find(arguments_.target_format) == nullptr)
    co_return fail(EINVAL, "Unknown file format");
  PLATTER_CO_TRY(
      find_create_drivers(session_.registry(), arguments_.target_format, *arguments_.output));
  base::Options options;
  options.set("size", base::align_up(length_, kSectorBytes));
  half_made_.emplace(session_, *arguments_.output);
  auto made = co_await session_.graph().create({.filename = *arguments_.output,
                                                .format = arguments_.target_format,
                                                .options = std::move(options)});
  if (!made) {
    co_return std::unexpected(std::move(made).error().with_context(
        *arguments_.output + ": error while creating output image"));
  }
  co_return Result<void>{};
}

io::Task<Result<void>> Copying::open_target() {
  auto cache = block::CacheMode::parse("unsafe");
  PLATTER_CO_ASSIGN(
      target_, co_await open_image(
                   session_, {.name = *arguments_.output,
                              .format = arguments_.target_format,
                              .flags = {.read_only = false},
                              .cache = *cache,
                              .discard_unmap = true,
                              .needed = block::Permission::kConsistentRead |
                                        block::Permission::kWrite | block::Permission::kResize}));
  co_return Result<void>{};
}

// The copy engine copies whole images: a part of one is an image of its own, seen through raw.
io::Task<Result<void>> Copying::copy_sectors(uint64_t bytes) {
  if (bytes == 0) co_return Result<void>{};
  block::Backend* from = source_.get();
  if (begin_ != 0 || bytes != source_->size()) {
    block::OpenRequest request;
    request.options.set("driver", std::string("raw"));
    request.options.set("file", source_->node().name());
    request.options.set("offset", begin_);
    request.options.set("size", bytes);
    request.policy = session_.policy();
    PLATTER_CO_ASSIGN(window_, co_await session_.graph().open(std::move(request),
                                                              block::Permission::kConsistentRead,
                                                              block::kAllPermissions));
    from = window_.get();
  }
  const auto reactors = session_.all_reactors();
  job::CopyOptions options;
  options.sources.push_back({.backend = from});
  options.target = target_.get();
  options.reactors = reactors;
  options.target_reads_zero = target_->node().driver().zero_initialised();
  options.workers = std::max(2u, session_.reactors().size());
  PLATTER_CO_TRY(co_await job::copy(std::move(options)));
  co_return Result<void>{};
}

// What is left of a block that does not end with a sector.
io::Task<Result<void>> Copying::copy_tail(uint64_t offset, uint64_t bytes) {
  if (bytes == 0) co_return Result<void>{};
  io::AlignedBuffer buffer(kSectorBytes);
  PLATTER_CO_TRY(co_await source_->read(begin_ + offset, buffer.view(0, bytes)));
  co_return co_await target_->write(offset, buffer.view(0, bytes));
}

io::Task<Result<void>> Copying::copy() {
  PLATTER_CO_ASSIGN(source_, co_await open_image(session_, arguments_.source));
  choose_range();
  PLATTER_CO_TRY(co_await create_target());
  PLATTER_CO_TRY(co_await open_target());
  result_ = describe_image(*arguments_.output, *target_);
  result_.add("copied-bytes", length_);
  if (skipped_all_) {
    invocation_.console.error(*arguments_.input + ": cannot skip to specified offset");
    co_return Result<void>{};
  }
  const uint64_t sectors = base::align_down(length_, kSectorBytes);
  PLATTER_CO_TRY(co_await copy_sectors(sectors));
  co_return co_await copy_tail(sectors, length_ - sectors);
}

io::Task<Result<void>> Copying::close_all() {
  Result<void> first;
  for (auto* backend : {&target_, &window_, &source_}) {
    if (!*backend) continue;
    auto closed = co_await (*backend)->close();
    if (!closed && first) first = std::move(closed);
  }
  co_return first;
}

io::Task<int> Copying::run() {
  auto copied = co_await copy();
  auto closed = co_await close_all();
  if (copied && !closed) copied = std::move(closed);
  if (!copied)
    copied = std::unexpected(explain(std::move(copied).error(), "write", *arguments_.output));
  if (copied) {
    if (arguments_.json) invocation_.console.print(result_.dump_pretty() + "\n");
    co_return 0;
  }
  invocation_.console.error(copied.error());
  if (half_made_) half_made_->remove();
  co_return 1;
}

io::Task<int> run_in(Session& session, const Invocation& invocation, const DdArguments& arguments) {
  Copying copying(session, invocation, arguments);
  co_return co_await copying.run();
}

std::optional<int> read_operand(const Invocation& invocation, std::string_view word,
                                DdArguments& arguments) {
  const size_t equals = word.find('=');
  const std::string key(word.substr(0, equals));
  if (equals == word.npos) return invocation.fail("unrecognized operand " + key);
  const std::string value(word.substr(equals + 1));
  if (key == "if") {
    arguments.input = value;
  } else if (key == "of") {
    arguments.output = value;
  } else if (key == "bs") {
    const auto bytes = base::parse_size(value);
    if (bytes ? *bytes < 1 || *bytes > kMaxBlockBytes : bytes.error().code() == ERANGE) {
      return invocation.fail(
          fmt::format("Invalid bs specified. Must be between 1 and {}.", kMaxBlockBytes));
    }
    if (!bytes) return parse_size_argument(invocation, "bs", value), 1;
    arguments.block_bytes = *bytes;
  } else if (key == "count" || key == "skip") {
    const auto blocks = parse_size_argument(invocation, key, value);
    if (!blocks) return 1;
    if (key == "count") arguments.count = *blocks;
    if (key == "skip") arguments.skip = *blocks;
  } else {
    return invocation.fail("unrecognized operand " + key);
  }
  return std::nullopt;
}

int run_dd(Invocation& invocation) {
  DdArguments arguments;
  if (auto checked = check_common_options(invocation); !checked)
    return invocation.fail(checked.error());
  for (const auto& word : invocation.operands) {
    if (auto status = read_operand(invocation, word, arguments)) return *status;
  }
  if (!arguments.input || !arguments.output)
    return invocation.fail("Must specify both input and output files");
  // Nobody may write to the input meanwhile, this program to its output included, unless -U says
  // so.
  const bool share = invocation.has("force-share");
  arguments.source = {
      .name = *arguments.input,
      .image_opts = invocation.has("image-opts"),
      .format = invocation.value_or("f", ""),
      .force_share = share,
      .flags = {.read_only = true},
      .cache = {},
      .shared = share ? block::kAllPermissions
                      : block::Permission::kConsistentRead | block::Permission::kWriteUnchanged,
  };
  arguments.target_format = invocation.value_or("O", "raw");
  const auto json = json_output(invocation);
  if (!json) return invocation.fail(json.error());
  arguments.json = *json;
  return run_session(
      invocation, [&](Session& session) { return run_in(session, invocation, arguments); },
      Reactors::kOneAProcessor);
}

constexpr CommandOption kOptions[] = {
    {.name = "object", .argument = "OBJECT", .help = "define a secret or credentials"},
    {.name = "image-opts", .help = "INPUT is a list of options, not a file name"},
    {.letter = 'U', .name = "force-share", .help = "open INPUT even while somebody writes to it"},
    {.letter = 'f', .argument = "FMT", .help = "format of INPUT (default: found out)"},
    {.letter = 'O', .argument = "FMT", .help = "format of OUTPUT (default: raw)"},
    {.name = "output", .argument = "FORM", .help = "human or json", .native = true},
};

}  // namespace

extern const Command kDdCommand;
const Command kDdCommand = {
    .name = "dd",
    .summary = "Copy blocks of an image into a new one.",
    .operands = "[bs=BYTES] [count=BLOCKS] [skip=BLOCKS] if=INPUT of=OUTPUT",
    .options = kOptions,
    .run = run_dd,
};

}  // namespace platter::tool
