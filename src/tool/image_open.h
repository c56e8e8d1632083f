// Opening the images that a command line names: what -f, --image-opts, -U and cache modes mean, the
// same for every command.
#pragma once

#include <memory>
#include <string>

#include "block/graph.h"
#include "tool/command.h"
#include "tool/session.h"

namespace platter::tool {

struct ImageArgument {
  std::string name;  // a file name, or with image_opts an option string
  bool image_opts = false;
  std::string format;  // empty: probe
  bool force_share = false;
  block::OpenFlags flags;
  block::CacheMode cache;
  base::Options options = {};  // beside those of an option string
  bool discard_unmap = false;  // discards, and zeroing that may deallocate, reach the file
  block::Permissions needed = block::Permission::kConsistentRead;
  block::Permissions shared = block::kAllPermissions;
};

io::Task<Result<std::unique_ptr<block::Backend>>> open_image(Session& session, ImageArgument image);

}  // namespace platter::tool
