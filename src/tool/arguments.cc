#include "tool/arguments.h"

#include <cerrno>
#include <utility>

#include "base/size.h"
#include "base/try.h"

namespace platter::tool {
namespace {

constexpr std::pair<std::string_view, block::Preallocation> kPreallocationModes[] = {
    {"off", block::Preallocation::kOff},
    {"metadata", block::Preallocation::kMetadata},
    {"falloc", block::Preallocation::kFalloc},
    {"full", block::Preallocation::kFull},
};

// Lists are joined by commas: one that starts with a comma, or ends in an odd number of them (an
// even number is escaped ones), would run into its neighbour.
bool is_joinable(std::string_view list) {
  if (list.empty() || list.front() == ',') return false;
  const size_t last = list.find_last_not_of(',');
  return (list.size() - 1 - last) % 2 == 0;
}

}  // namespace

Result<bool> json_output(const Invocation& invocation) {
  const std::string form = invocation.value_or("output", "human");
  if (form == "json") return true;
  if (form == "human") return false;
  return fail(EINVAL, "--output must be used with human or json as argument.");
}

Result<void> check_common_options(const Invocation& invocation) {
  const bool has_format = invocation.has("format") || invocation.has("f");
  if (invocation.has("image-opts") && has_format) {
    return fail(EINVAL, "--image-opts and --format are mutually exclusive");
  }
  return {};
}

std::optional<uint64_t> parse_size_argument(const Invocation& invocation, std::string_view what,
                                            std::string_view text) {
  auto size = base::parse_size(text);
  if (size) return *size;
  const std::string begin = "Invalid " + std::string(what) + " specified.";
  if (size.error().code() == ERANGE) {
    invocation.console.error(begin + " Must be between 0 and " + std::to_string(base::kMaxSize) +
                             ".");
  } else {
    invocation.console.error(begin + " You may use k, M, G, T, P or E suffixes for");
    invocation.console.error("kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");
  }
  return std::nullopt;
}

Result<std::string> join_option_lists(const Invocation& invocation) {
  std::string joined;
  for (const auto& list : invocation.values("o")) {
    if (!is_joinable(list)) return fail(EINVAL, "Invalid option list: " + list);
    if (!joined.empty()) joined += ',';
    joined += list;
  }
  return joined;
}

bool asks_for_help(std::string_view option_list) {
  for (size_t begin = 0; begin <= option_list.size();) {
    size_t end = option_list.find(',', begin);
    if (end == option_list.npos) end = option_list.size();
    const auto word = option_list.substr(begin, end - begin);
    if (word == "help" || word == "?") return true;
    begin = end + 1;
  }
  return false;
}

Result<block::Preallocation> parse_preallocation(std::string_view name) {
  for (const auto& [known, mode] : kPreallocationModes) {
    if (known == name) return mode;
  }
  return fail(EINVAL, "Invalid preallocation mode '" + std::string(name) + "'");
}

}  // namespace platter::tool
