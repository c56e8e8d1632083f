// What `convert` was asked to do.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "block/graph.h"
#include "tool/command.h"
#include "tool/snapshot_selector.h"

namespace platter::tool {

struct ConvertArguments {
  std::vector<std::string> sources;
  std::string target;
  std::string format;  // of the sources; empty: probe
  std::string target_format;
  std::optional<std::string> backing;
  std::optional<std::string> backing_format;
  std::string creation_options;  // the -o lists, joined
  block::CacheMode target_cache;
  block::CacheMode source_cache;
  uint64_t sparse_size = 4096;
  uint64_t bytes_per_second = 0;  // 0: no limit
  unsigned workers = 0;           // 0: chosen
  bool image_opts = false;
  bool target_image_opts = false;
  bool force_share = false;
  bool skip_create = false;
  bool target_is_zero = false;
  bool any_order = false;
  bool compressed = false;
  bool offload = false;
  bool salvage = false;
  bool quiet = false;
  bool bitmaps = false;
  bool skip_broken_bitmaps = false;
  bool json = false;                         // tells the result in JSON
  std::optional<SnapshotSelector> snapshot;  // of the source
};

// An exit status if that is the end: an error, which has been printed, or help.
std::optional<int> parse_convert_arguments(const Invocation& invocation,
                                           ConvertArguments& arguments);

}  // namespace platter::tool
