#include "tool/image_open.h"

#include <cerrno>

#include "base/try.h"
#include "fmt/format.h"

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
    if (image.name.empty()) {
      return fail(EINVAL, "Could not open '': The 'file' block driver requires a file name");
    }
    request.filename = image.name;
    request.format = image.format;
    request.options = image.options;
    return request;
  }
  request.description = image.name;
  PLATTER_ASSIGN(request.options, base::Options::from_key_values(image.name, "file"));
  request.options.merge_defaults(image.options);
  const auto* given = request.options.find(kForceShareKey);
  if (image.force_share && given != nullptr && !says_on(*given)) {
    return fail(EINVAL, "--force-share/-U conflicts with image options");
  }
  return request;
}

}  // namespace

io::Task<Result<std::unique_ptr<block::Backend>>> open_image(Session& session,
                                                             ImageArgument image) {
  PLATTER_CO_ASSIGN(auto request, make_request(session, image));
  co_return co_await session.graph().open(std::move(request), image.needed, image.shared);
}

bool says_only_why(const Error& error) {
  return error.message() == Error::from_errno(error.code()).message();
}

Error explain(Error error, std::string_view verb, std::string_view name) {
  if (!says_only_why(error)) return error;
  return std::move(error).with_context(fmt::format("Could not {} '{}'", verb, name));
}

io::Task<int> close_image(const Invocation& invocation, block::Backend& backend, int status) {
  const std::string name = backend.node().filename();
  auto closed = co_await backend.close();
  if (closed || status != 0) co_return status;
  co_return invocation.fail(explain(std::move(closed).error(), "close", name));
}

base::Json describe_image(std::string_view name, const block::Backend& backend) {
  auto json = base::Json::object();
  json.add("filename", name);
  json.add("format", backend.node().type().name);
  json.add("virtual-size", backend.size());
  return json;
}

}  // namespace platter::tool
