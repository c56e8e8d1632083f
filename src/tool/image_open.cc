#include "tool/image_open.h"

#include <cerrno>

#include "base/try.h"

namespace platter::tool {
namespace {

constexpr std::string_view kForceShareKey = "force-share";

bool says_on(const base::OptionValue& value) {
  if (const auto* flag = std::get_if<bool>(&value)) return *flag;
  const auto* text = std::get_if<std::string>(&value);
  return text != nullptr && *text == "on";
}

Result<block::OpenRequest> make_request(const Session& session, const ImageArgument& image) {
  block::OpenRequest request;
  request.flags = image.flags;
  request.cache = image.cache;
  request.force_share = image.force_share;
  request.policy = session.policy();
  if (!image.image_opts) {
    request.filename = image.name;
    request.format = image.format;
    return request;
  }
  request.description = image.name;
  PLATTER_ASSIGN(request.options, base::Options::from_key_values(image.name, "file"));
  const auto* given = request.options.find(kForceShareKey);
  if (image.force_share && given != nullptr && !says_on(*given)) {
    return fail(EINVAL, "--force-share/-U conflicts with image options");
  }
  return request;
}

std::string raw_warning(const std::string& filename) {
  return "WARNING: Image format was not specified for '" + filename +
         "' and probing guessed raw.\n"
         "         Automatically detecting the format is dangerous for raw images, write operations on "
         "block 0 will be restricted.\n"
         "         Specify the 'raw' format explicitly to remove the restrictions.\n";
}

}  // namespace

io::Task<Result<std::unique_ptr<block::Backend>>> open_image(Session& session, ImageArgument image) {
  PLATTER_CO_ASSIGN(auto request, make_request(session, image));
  const bool writable = !request.flags.read_only;
  auto backend = co_await session.graph().open(std::move(request), image.needed, image.shared);
  if (backend && writable) {
    const auto& node = (*backend)->node();
    if (node.probed() && node.type().name == "raw") session.console().note(raw_warning(node.filename()));
  }
  co_return backend;
}

}  // namespace platter::tool
