// Opening the images that a command line names: what -f, --image-opts, -U and cache modes mean, the
// same for every command.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/json.h"
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

// Closes it; the exit status: `status`, unless that is 0 and closing fails, which is told.
io::Task<int> close_image(const Invocation& invocation, block::Backend& backend, int status);

// Whether the error is nothing but the system's text for its number.
bool says_only_why(const Error& error);
// "Could not resize 'a.qcow2': WHY", where it is. One that has words of its own is left as it is.
Error explain(Error error, std::string_view verb, std::string_view name);

// What every result in JSON says of an image: filename, format and virtual-size.
base::Json describe_image(std::string_view name, const block::Backend& backend);

}  // namespace platter::tool
