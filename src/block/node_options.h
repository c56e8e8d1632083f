// What every node may be told, whatever its driver. For this room alone.
#pragma once

#include <string>

#include "base/options.h"
#include "block/driver.h"

namespace platter::block {

struct NodeOptions {
  std::string node_name = {};  // empty: not given, as with `driver`
  std::string driver = {};
  OpenFlags flags = {};
  bool no_flush = false;
  bool force_share = false;
  DetectZeroes detect_zeroes = DetectZeroes::kOff;
};

// Takes them out of `options`. What is not given stays as it is in `settings`.
Result<void> take_node_options(base::Options& options, NodeOptions& settings);

}  // namespace platter::block
