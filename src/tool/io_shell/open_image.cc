#include "tool/io_shell/open_image.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <utility>

#include "base/try.h"
#include "block/filename.h"
#include "fmt/format.h"

namespace platter::tool::io_shell {
namespace {

using block::Permission;

Result<bool> parse_discard(std::string_view mode) {
  if (mode == "unmap" || mode == "on") return true;
  if (mode == "ignore" || mode == "off") return false;
  return fail(EINVAL, fmt::format("Invalid discard option: {}", mode));
}

bool says_on(const base::OptionValue& value) {
  if (const auto* flag = std::get_if<bool>(&value)) return *flag;
  const auto* text = std::get_if<std::string>(&value);
  return text != nullptr && *text == "on";
}

// Puts the filter above what the request describes.
Result<void> add_copy_on_read(block::OpenRequest& request) {
  if (request.filename.starts_with(block::kJsonPrefix)) {
    PLATTER_ASSIGN(const auto described,
                   base::Options::from_json_text(
                       std::string_view(request.filename).substr(block::kJsonPrefix.size())));
    request.options.merge_defaults(described);
    request.filename.clear();
  }
  const base::Options below = std::exchange(request.options, {});
  request.options.set("driver", std::string("copy-on-read"));
  for (const auto& [key, value] : below.entries()) request.options.set("file." + key, value);
  return {};
}

Result<block::OpenRequest> make_request(const Session& session, const OpenSettings& settings) {
  block::OpenRequest request;
  request.options = settings.options;
  if (settings.name_is_options) {
    PLATTER_ASSIGN(const auto described, base::Options::from_key_values(settings.name));
    request.options.merge_defaults(described);
  } else if (settings.named) {
    if (settings.name.empty()) return fail(EINVAL, "The 'file' block driver requires a file name");
    request.filename = settings.name;
  }
  if (const auto* given = request.options.find("force-share");
      settings.force_share && given != nullptr && !says_on(*given)) {
    return fail(EINVAL, "--force-share/-U conflicts with image options");
  }
  if (!settings.aio.empty()) request.options.set("file.aio", settings.aio);
  if (settings.copy_on_read && !settings.snapshot) PLATTER_TRY(add_copy_on_read(request));
  request.flags.read_only = !settings.writable || settings.snapshot;
  request.cache = settings.cache;
  request.force_share = settings.force_share;
  request.discard_unmap = settings.unmap;
  request.policy = session.policy();
  return request;
}

// The shell says what it could not open in its own words.
Error without_name(Error error, const std::string& filename) {
  const std::string said = fmt::format("Could not open '{}': ", filename);
  if (filename.empty() || !error.message().starts_with(said)) return error;
  return Error(error.code(), error.message().substr(said.size())).with_hint(error.hint());
}

io::Task<Result<std::unique_ptr<block::Backend>>> open_backend(Session& session,
                                                               block::OpenRequest request) {
  block::Permissions needed = Permission::kConsistentRead;
  if (!request.flags.read_only) needed |= Permission::kWrite;
  const std::string filename = request.filename;
  auto backend = co_await session.graph().open(std::move(request), needed, block::kAllPermissions);
  if (!backend) co_return std::unexpected(without_name(std::move(backend).error(), filename));
  co_return std::move(*backend);
}

// An empty file of a name that nothing else has.
Result<std::string> make_temporary_file() {
  const char* directory = std::getenv("TMPDIR");
  std::string path = fmt::format("{}/platter-XXXXXX",
                                 directory != nullptr && *directory != 0 ? directory : "/var/tmp");
  const int file = mkostemp(path.data(), O_CLOEXEC);
  if (file < 0) {
    const int code = errno;
    return std::unexpected(
        Error::from_errno(code, fmt::format("Could not create the temporary file '{}'", path)));
  }
  ::close(file);
  return path;
}

io::Task<Result<std::unique_ptr<block::Backend>>> make_overlay(Session& session,
                                                               OpenSettings settings,
                                                               block::Backend& base,
                                                               std::string path) {
  block::CreateRequest creation;
  creation.filename = path;
  creation.format = "qcow2";
  creation.options.set("size", base.size());
  PLATTER_CO_TRY(co_await session.graph().create(std::move(creation)));
  block::OpenRequest request;
  request.options.set("driver", std::string("qcow2"));
  request.options.set("file.driver", std::string("file"));
  request.options.set("file.filename", path);
  request.options.set("backing", base.node().name());
  if (settings.copy_on_read) PLATTER_CO_TRY(add_copy_on_read(request));
  request.flags.read_only = !settings.writable;
  request.cache = {.no_flush = true};
  request.discard_unmap = settings.unmap;
  request.policy = session.policy();
  co_return co_await open_backend(session, std::move(request));
}

// An overlay on `base` whose file has no name any more: it goes when it is closed.
io::Task<Result<std::unique_ptr<block::Backend>>> open_overlay(
    Session& session, OpenSettings settings, std::unique_ptr<block::Backend> base) {
  auto path = make_temporary_file();
  Result<std::unique_ptr<block::Backend>> overlay = fail_errno(EIO);
  if (path) {
    HalfMadeFile guard(session, *path);
    overlay = co_await make_overlay(session, std::move(settings), *base, *path);
    unlink(path->c_str());
  } else {
    overlay = std::unexpected(std::move(path).error());
  }
  auto closed = co_await base->close();
  if (overlay && !closed) {
    PLATTER_CO_TRY(co_await (*overlay)->close());
    co_return std::unexpected(std::move(closed).error());
  }
  co_return std::move(overlay);
}

}  // namespace

Result<bool> OpenSettings::apply(char letter, std::string_view value) {
  switch (letter) {
    case 'r': writable = false; return true;
    case 's': snapshot = true; return true;
    case 'C': copy_on_read = true; return true;
    case 'U': force_share = true; return true;
    case 'n': cache = {.direct = true}; return true;
    case 'k': aio = "native"; return true;
    case 'i':
      if (value != "threads" && value != "native" && value != "io_uring") {
        return fail(EINVAL, fmt::format("Invalid aio option: {}", value));
      }
      aio = value;
      return true;
    case 't': {
      PLATTER_ASSIGN(cache, block::CacheMode::parse(value));
      return true;
    }
    case 'd': {
      PLATTER_ASSIGN(unmap, parse_discard(value));
      return true;
    }
    default: return false;
  }
}

io::Task<Result<std::unique_ptr<OpenImage>>> OpenImage::open(Session& session,
                                                             OpenSettings settings) {
  PLATTER_CO_ASSIGN(auto request, make_request(session, settings));
  if (settings.copy_on_read && !settings.writable) {
    co_return fail(EINVAL, "Can't use copy-on-read on read-only device");
  }
  PLATTER_CO_ASSIGN(auto backend, co_await open_backend(session, std::move(request)));
  if (settings.snapshot) {
    PLATTER_CO_ASSIGN(backend, co_await open_overlay(session, settings, std::move(backend)));
  }
  co_return std::unique_ptr<OpenImage>(new OpenImage(std::move(settings), std::move(backend)));
}

}  // namespace platter::tool::io_shell
