#include "block/node_options.h"

#include <array>

#include "base/try.h"

namespace platter::block {
namespace {

using base::OptionType;

constexpr std::array<std::string_view, 4> kDiscardChoices = {"ignore", "off", "unmap", "on"};
constexpr std::array<std::string_view, 3> kDetectZeroesChoices = {"off", "on", "unmap"};

constexpr base::OptionDef kNodeOptions[] = {
    {.name = "driver", .type = OptionType::kString, .help = "Block driver to use for the node"},
    {.name = "node-name", .type = OptionType::kString, .help = "Node name"},
    {.name = "discard",
     .type = OptionType::kString,
     .help = "discard operation (ignore/off, unmap/on)",
     .choices = kDiscardChoices,
     .changeable = true},
    {.name = "cache.direct",
     .type = OptionType::kBool,
     .help = "Bypass software writeback cache on the host",
     .changeable = true},
    {.name = "cache.no-flush",
     .type = OptionType::kBool,
     .help = "Ignore flush requests",
     .changeable = true},
    {.name = "cache.writeback",
     .type = OptionType::kBool,
     .help = "Writes complete before they are durable"},
    {.name = "read-only",
     .type = OptionType::kBool,
     .help = "Node is opened in read-only mode",
     .changeable = true},
    {.name = "auto-read-only",
     .type = OptionType::kBool,
     .help = "Node can become read-only if opening read-write fails",
     .changeable = true},
    {.name = "force-share",
     .type = OptionType::kBool,
     .help = "always accept other writers (default: off)",
     .default_value = {},
     .changeable = true},
    {.name = "detect-zeroes",
     .type = OptionType::kString,
     .help = "try to optimize zero writes (off, on, unmap)",
     .choices = kDetectZeroesChoices,
     .changeable = true},
};
constexpr base::OptionSchema kNodeSchema{kNodeOptions};

}  // namespace

Result<void> take_node_options(base::Options& options, NodeOptions& settings) {
  PLATTER_ASSIGN(const base::OptionSet set, kNodeSchema.take(options));
  OpenFlags& flags = settings.flags;
  if (set.given("read-only")) flags.read_only = set.get_bool("read-only");
  if (set.given("auto-read-only")) flags.auto_read_only = set.get_bool("auto-read-only");
  if (set.given("cache.direct")) flags.direct = set.get_bool("cache.direct");
  if (set.given("cache.no-flush")) settings.no_flush = set.get_bool("cache.no-flush");
  if (set.given("force-share")) settings.force_share = set.get_bool("force-share");
  if (set.given("discard")) {
    const std::string& discard = set.get_string("discard");
    flags.unmap = discard == "unmap" || discard == "on";
  }
  if (set.given("detect-zeroes")) {
    const std::string& detect = set.get_string("detect-zeroes");
    settings.detect_zeroes = detect == "on"      ? DetectZeroes::kOn
                             : detect == "unmap" ? DetectZeroes::kUnmap
                                                 : DetectZeroes::kOff;
  }
  if (settings.detect_zeroes == DetectZeroes::kUnmap && !flags.unmap) {
    return fail(EINVAL,
                "setting detect-zeroes to unmap is not allowed without setting discard "
                "operation to unmap");
  }
  if (settings.force_share && !flags.read_only) {
    return fail(EINVAL, "force-share=on can only be used with read-only images");
  }
  if (set.given("node-name")) settings.node_name = set.get_string("node-name");
  if (set.given("driver")) settings.driver = set.get_string("driver");
  return {};
}

}  // namespace platter::block
