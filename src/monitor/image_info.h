// What an image says about itself, and how that is written as JSON.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/json.h"
#include "block/driver.h"
#include "block/node.h"
#include "io/task.h"

namespace platter::monitor {

struct ImageInfo {
  std::string filename;
  std::string format;
  uint64_t virtual_size = 0;
  std::optional<uint64_t> actual_size;
  block::DriverInfo driver;
  std::optional<block::BackingReference> backing;
  std::string full_backing_filename;  // empty: cannot be told
};

io::Task<Result<ImageInfo>> collect_image_info(block::Node& node);

// The order of the members is the one that qemu-img prints.
base::Json to_json(const ImageInfo& info);
base::Json to_json(const block::SnapshotInfo& snapshot);

}  // namespace platter::monitor
