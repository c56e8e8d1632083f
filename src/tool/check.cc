// platter check: whether an image's metadata hangs together.
#include <cerrno>

#include "base/try.h"
#include "fmt/format.h"
#include "tool/arguments.h"
#include "tool/command.h"
#include "tool/image_open.h"
#include "tool/session.h"

namespace platter::tool {
namespace {

// What scripts rely on.
enum ExitStatus {
  kConsistent = 0,
  kCheckFailed = 1,
  kCorrupted = 2,
  kLeaksOnly = 3,
  kNotSupported = 63,
};

// What is found goes to standard error as it is found.
class StreamReporter : public block::CheckReporter {
 public:
  explicit StreamReporter(Console& console) : console_(console) {}
  void report(std::string line) override { console_.note(line + "\n"); }
  void progress(uint64_t done, uint64_t total) override { console_.events().progress(done, total); }

 private:
  Console& console_;
};

int exit_status(const block::CheckResult& result) {
  if (result.corruptions != 0) return kCorrupted;
  if (result.leaks != 0) return kLeaksOnly;
  return kConsistent;
}

double percent(uint64_t part, uint64_t whole) {
  return static_cast<double>(part) * 100.0 / static_cast<double>(whole);
}

std::string to_text(const block::CheckResult& result) {
  std::string out;
  if (result.corruptions == 0 && result.leaks == 0 && result.check_errors == 0) {
    out += "No errors were found on the image.\n";
  }
  if (result.corruptions != 0) {
    out += fmt::format(
        "\n{} errors were found on the image.\n"
        "Data may be corrupted, or further writes to the image may corrupt it.\n",
        result.corruptions);
  }
  if (result.leaks != 0) {
    out += fmt::format(
        "\n{} leaked clusters were found on the image.\n"
        "This means waste of disk space, but no harm to data.\n",
        result.leaks);
  }
  if (result.check_errors != 0) {
    out +=
        fmt::format("\n{} internal errors have occurred during the check.\n", result.check_errors);
  }
  if (result.total_clusters != 0 && result.allocated_clusters != 0) {
    out +=
        fmt::format("{}/{} = {:.2f}% allocated, {:.2f}% fragmented, {:.2f}% compressed clusters\n",
                    result.allocated_clusters, result.total_clusters,
                    percent(result.allocated_clusters, result.total_clusters),
                    percent(result.fragmented_clusters, result.allocated_clusters),
                    percent(result.compressed_clusters, result.allocated_clusters));
  }
  if (result.image_end_offset != 0)
    out += fmt::format("Image end offset: {}\n", result.image_end_offset);
  return out;
}

// The order of the members is the one that qemu-img prints; counts of nothing are left out.
base::Json to_json(const block::CheckResult& result, const std::string& filename,
                   std::string_view format) {
  auto json = base::Json::object();
  auto count = [&](const char* key, uint64_t value) {
    if (value != 0) json.add(key, value);
  };
  count("image-end-offset", result.image_end_offset);
  count("compressed-clusters", result.compressed_clusters);
  count("total-clusters", result.total_clusters);
  count("corruptions", result.corruptions);
  json.add("check-errors", result.check_errors);
  count("leaks", result.leaks);
  count("corruptions-fixed", result.corruptions_fixed);
  count("leaks-fixed", result.leaks_fixed);
  count("allocated-clusters", result.allocated_clusters);
  json.add("filename", filename);
  json.add("format", format);
  count("fragmented-clusters", result.fragmented_clusters);
  return json;
}

std::string repaired_text(const block::CheckResult& result) {
  return fmt::format(
      "The following inconsistencies were found and repaired:\n\n    {} leaked clusters\n    {} "
      "corruptions\n\nDouble checking the fixed image now...\n",
      result.leaks_fixed, result.corruptions_fixed);
}

// Repairs; what that has fixed is part of the result of the check that follows.
io::Task<Result<block::CheckResult>> repair_and_check(const Invocation& invocation,
                                                      block::Checkable& checkable,
                                                      StreamReporter& reporter, bool json) {
  const auto what =
      *invocation.value("repair") == "leaks" ? block::Repair::kLeaks : block::Repair::kAll;
  PLATTER_CO_ASSIGN(auto result, co_await checkable.repair(reporter, what));
  if (result.corruptions_fixed == 0 && result.leaks_fixed == 0) co_return result;
  if (!json && !invocation.has("q")) {
    invocation.console.print(repaired_text(result));
    invocation.console.flush();
  }
  const auto fixed = result;
  PLATTER_CO_ASSIGN(result, co_await checkable.check(reporter));
  result.corruptions_fixed = fixed.corruptions_fixed;
  result.leaks_fixed = fixed.leaks_fixed;
  co_return result;
}

io::Task<int> check_backend(const Invocation& invocation, block::Backend& backend,
                            std::string filename, bool json) {
  auto* checkable = backend.node().driver().checkable();
  if (checkable == nullptr) {
    invocation.fail("This image format does not support checks");
    co_return kNotSupported;
  }
  StreamReporter reporter(invocation.console);
  auto result = invocation.has("repair")
                    ? co_await repair_and_check(invocation, *checkable, reporter, json)
                    : co_await checkable->check(reporter);
  if (!result) {
    invocation.fail(std::move(result).error().with_context("Check failed"));
    co_return kCheckFailed;
  }
  if (!invocation.has("q")) {
    if (json) {
      invocation.console.print(
          to_json(*result, filename, backend.node().type().name).dump_pretty() + "\n");
    } else {
      invocation.console.print(to_text(*result));
    }
  }
  if (result->check_errors != 0) {
    invocation.fail("Check failed");
    co_return kCheckFailed;
  }
  co_return exit_status(*result);
}

io::Task<int> run_in(Session& session, const Invocation& invocation, ImageArgument image,
                     bool json) {
  const std::string filename = image.name;
  auto backend = co_await open_image(session, std::move(image));
  if (!backend) co_return invocation.fail(backend.error());
  const int status = co_await check_backend(invocation, **backend, filename, json);
  co_return co_await close_image(invocation, **backend, status);
}

int run_check(Invocation& invocation) {
  const std::string repair = invocation.value_or("repair", "all");
  if (repair != "leaks" && repair != "all") {
    return invocation.usage_error("Unknown option value for -r (expecting 'leaks' or 'all'): " +
                                  repair);
  }
  auto json = json_output(invocation);
  if (!json) return invocation.fail(json.error());
  if (invocation.operands.size() != 1)
    return invocation.usage_error("Expecting one image file name");
  if (auto checked = check_common_options(invocation); !checked)
    return invocation.fail(checked.error());
  const std::string cache_name = invocation.value_or("T", "writeback");
  auto cache = block::CacheMode::parse(cache_name);
  if (!cache) return invocation.fail("Invalid source cache option: " + cache_name);
  ImageArgument image = {
      .name = invocation.operands[0],
      .image_opts = invocation.has("image-opts"),
      .format = invocation.value_or("format", ""),
      .force_share = invocation.has("force-share"),
      .flags = {.read_only = !invocation.has("repair"), .check = true},
      .cache = *cache,
  };
  if (invocation.has("repair")) {
    image.needed =
        block::Permission::kConsistentRead | block::Permission::kWrite | block::Permission::kResize;
  }
  return run_session(invocation,
                     [&](Session& session) { return run_in(session, invocation, image, *json); });
}

constexpr CommandOption kOptions[] = {
    {.name = "object", .argument = "OBJECT", .help = "define a secret or credentials"},
    {.name = "image-opts", .help = "FILE is a list of options, not a file name"},
    {.letter = 'q', .help = "say nothing but errors"},
    {.letter = 'f',
     .name = "format",
     .argument = "FMT",
     .help = "format of the image (default: found out)"},
    {.name = "output", .argument = "FORM", .help = "human or json"},
    {.letter = 'r',
     .name = "repair",
     .argument = "leaks|all",
     .help = "repair what is found: leaked clusters alone, or all"},
    {.letter = 'T', .argument = "CACHE", .help = "cache mode to read with"},
    {.letter = 'U', .name = "force-share", .help = "open it even while somebody writes to it"},
};

constexpr ExitMeaning kExitMeanings[] = {
    {kConsistent, "the image is consistent"},
    {kCheckFailed, "the check could not be made"},
    {kCorrupted, "the image is corrupt"},
    {kLeaksOnly, "clusters are leaked, and nothing worse"},
    {kNotSupported, "the format has no check"},
};

}  // namespace

extern const Command kCheckCommand;
const Command kCheckCommand = {
    .name = "check",
    .summary = "Check an image for corruption and leaks.",
    .operands = "FILE",
    .options = kOptions,
    .run = run_check,
    .exit_statuses = kExitMeanings,
};

}  // namespace platter::tool
