#include <charconv>

#include "tool/arguments.h"
#include "tool/convert.h"
#include "tool/create_image.h"

namespace platter::tool {
namespace {

constexpr unsigned kMaxWorkers = 16;
constexpr uint64_t kMaxSparseSize = 16 << 20;
constexpr uint64_t kSectorSize = 512;

std::optional<int> parse_numbers(const Invocation& invocation, ConvertArguments& arguments) {
  if (auto text = invocation.value("m")) {
    unsigned number = 0;
    auto [end, code] = std::from_chars(text->data(), text->data() + text->size(), number);
    if (code != std::errc() || end != text->data() + text->size() || number < 1 ||
        number > kMaxWorkers) {
      return invocation.fail(
          "Invalid number of coroutines. Allowed number of coroutines is between 1 and 16");
    }
    arguments.workers = number;
  }
  if (auto text = invocation.value("S")) {
    auto size = parse_size_argument(invocation, "buffer size for sparse output", *text);
    if (!size) return 1;
    if (*size % kSectorSize != 0 || *size > kMaxSparseSize) {
      return invocation.fail(
          "Invalid buffer size for sparse output specified. Valid sizes are multiples of 512 up to "
          "16777216. Select 0 to disable sparse detection (fully allocates output).");
    }
    arguments.sparse_size = *size;
  }
  if (auto text = invocation.value("r")) {
    auto rate = parse_size_argument(invocation, "rate limit", *text);
    if (!rate) return 1;
    arguments.bytes_per_second = *rate;
  }
  return std::nullopt;
}

// Options that exclude each other.
std::optional<std::string_view> conflict(const Invocation& invocation) {
  const bool skip_create = invocation.has("n");
  if (invocation.has("C") && invocation.has("c")) {
    return "Cannot enable copy offloading when -c is used";
  }
  if (invocation.has("C") && invocation.has("S")) {
    return "Cannot enable copy offloading when -S is used";
  }
  if (invocation.has("C") && invocation.has("salvage")) {
    return "Cannot use copy offloading in salvaging mode";
  }
  if (invocation.has("image-opts") && invocation.has("f")) {
    return "--image-opts and --format are mutually exclusive";
  }
  if (invocation.has("target-image-opts") && !skip_create) {
    return "--target-image-opts requires use of -n flag";
  }
  if (invocation.has("target-image-opts") && invocation.has("O")) {
    return "--image-opts and --format are mutually exclusive";
  }
  if (invocation.has("target-is-zero") && !skip_create) {
    return "--target-is-zero requires use of -n flag";
  }
  if (invocation.has("skip-broken-bitmaps") && !invocation.has("bitmaps")) {
    return "Use of --skip-broken-bitmaps requires --bitmaps";
  }
  if (invocation.has("o") && skip_create) return "-o has no effect when skipping image creation";
  return std::nullopt;
}

int print_option_help(const Invocation& invocation, const std::string& format,
                      const std::string& filename) {
  auto text = create_option_help(block::DriverRegistry::builtin(), format, filename);
  if (!text) return invocation.fail(text.error());
  invocation.console.print(*text);
  return 0;
}

}  // namespace

std::optional<int> parse_convert_arguments(const Invocation& invocation,
                                           ConvertArguments& arguments) {
  if (auto status = parse_numbers(invocation, arguments)) return status;
  auto list = join_option_lists(invocation);
  if (!list) return invocation.fail(list.error());
  arguments.creation_options = *list;
  if (auto text = invocation.value("l")) {
    auto selector = SnapshotSelector::parse(*text);
    if (!selector) {
      invocation.console.error(selector.error().message());
      return invocation.fail(selector.error().hint());
    }
    arguments.snapshot = *selector;
  }
  if (auto text = conflict(invocation)) return invocation.fail(*text);
  if (auto common = check_common_options(invocation); !common)
    return invocation.fail(common.error());

  const auto json = json_output(invocation);
  if (!json) return invocation.fail(json.error());
  arguments.json = *json;
  arguments.target_format = invocation.value_or("O", "raw");
  const std::vector<std::string>& names = invocation.operands;
  if (asks_for_help(arguments.creation_options)) {
    return print_option_help(invocation, arguments.target_format,
                             names.size() > 1 ? names.back() : "");
  }
  if (names.size() < 2) return invocation.fail("Must specify image file name");
  auto target_cache = block::CacheMode::parse(invocation.value_or("t", "unsafe"));
  if (!target_cache) return invocation.fail("Invalid cache option: " + *invocation.value("t"));
  auto source_cache = block::CacheMode::parse(invocation.value_or("T", "writeback"));
  if (!source_cache)
    return invocation.fail("Invalid source cache option: " + *invocation.value("T"));

  arguments.target_cache = *target_cache;
  arguments.source_cache = *source_cache;
  arguments.sources.assign(names.begin(), names.end() - 1);
  arguments.target = names.back();
  arguments.format = invocation.value_or("f", "");
  arguments.backing = invocation.value("B");
  arguments.backing_format = invocation.value("F");
  arguments.image_opts = invocation.has("image-opts");
  arguments.target_image_opts = invocation.has("target-image-opts");
  arguments.force_share = invocation.has("force-share");
  arguments.skip_create = invocation.has("n");
  arguments.target_is_zero = invocation.has("target-is-zero");
  arguments.any_order = invocation.has("W");
  arguments.compressed = invocation.has("c");
  arguments.offload = invocation.has("C");
  arguments.salvage = invocation.has("salvage");
  arguments.quiet = invocation.has("q");
  arguments.bitmaps = invocation.has("bitmaps");
  arguments.skip_broken_bitmaps = invocation.has("skip-broken-bitmaps");
  return std::nullopt;
}

}  // namespace platter::tool
