#include "format/qcow2/data_file.h"

#include "base/try.h"
#include "block/filename.h"

namespace platter::format::qcow2 {
namespace {

constexpr std::string_view kChild = "data-file";

// "json:..." and "nbd:..." are paths too: an image names a file, and describes no node.
std::string as_path(const std::string& name) {
  return block::protocol_prefix(name).empty() ? name : "./" + name;
}

Result<void> check_name(const OpenPolicy& policy, const std::string& name,
                        const std::string& image_name) {
  if (name.empty()) return fail(EINVAL, "'data-file' is required for this image");
  return block::check_reach(policy, image_name, as_path(name), name, "Data file");
}

}  // namespace

io::Task<Result<block::Child*>> open_data_file(block::OpenContext& context, const Header& header,
                                               const std::string& image_name) {
  if (context.flags().no_io) {
    (void)context.take_options(kChild);
    co_return nullptr;
  }
  if (!header.has(kExternalDataFile)) {
    if (!context.names_child(kChild)) co_return nullptr;
    co_return fail(EINVAL, "'data-file' can only be set for images with an external data file");
  }
  if (!context.names_child(kChild))
    PLATTER_CO_TRY(check_name(context.policy(), header.data_file, image_name));
  co_return co_await context.open_child(kChild, block::ChildRole::kData, as_path(header.data_file));
}

}  // namespace platter::format::qcow2
