// What the file driver can be told, and how it is opened.

#include <array>

#include <fmt/format.h>

#include "base/try.h"
#include "block/graph.h"
#include "block/node.h"
#include "io/reactor.h"
#include "protocol/file/create.h"
#include "protocol/file/driver.h"
#include "protocol/file/driver_type.h"

namespace platter::protocol {

namespace {

using base::OptionType;
using namespace block;

Result<std::unique_ptr<io::File>> open_path(io::FileSystem& files, const std::string& path,
                                            io::OpenFlags flags) {
  auto file = files.open(path, flags);
  if (!file) {
    const int code = file.error().code();
    return std::unexpected(Error::from_errno(code, fmt::format("Could not open '{}'", path)));
  }
  return file;
}

struct Opened {
  std::unique_ptr<io::File> file;
  io::FileInfo info;
};

Result<Opened> open_image_file(io::FileSystem& files, const std::string& path,
                               io::OpenFlags flags) {
  PLATTER_ASSIGN(std::unique_ptr<io::File> file, open_path(files, path, flags));
  PLATTER_ASSIGN(io::FileInfo info, file->info());
  if (info.kind != io::FileKind::kRegular && info.kind != io::FileKind::kBlockDevice) {
    return fail(EINVAL, fmt::format("'file' driver requires '{}' to be a regular file", path));
  }
  return Opened{std::move(file), info};
}

Result<io::IoMode> parse_aio(const base::OptionSet& options, const OpenFlags& flags) {
  const std::string& aio = options.get_string("aio");
  if (aio == "native" && !flags.direct) {
    return fail(EINVAL,
                "aio=native was specified, but it requires cache.direct=on, which was not "
                "specified.");
  }
  return io::IoMode{.use_threads = aio == "threads"};
}

// off, on, or auto: where the file system has locks.
Result<bool> decide_locking(const base::OptionSet& options, io::File& file) {
  const std::string& locking = options.get_string("locking");
  if (locking == "off") return false;
  if (ImageLocks::supported(file)) return true;
  if (locking == "auto") return false;
  return fail(ENOTSUP, "File locking requested, but the file system has none");
}

io::Task<Result<std::unique_ptr<Driver>>> open_file(OpenContext& context) {
  const base::OptionSet& options = context.options();
  if (!options.given("filename")) {
    co_return fail(EINVAL, "The 'file' block driver requires a file name");
  }
  const OpenFlags& flags = context.flags();
  FileDriver::Setup setup;
  setup.path = options.get_string("filename");
  setup.direct = flags.direct;
  setup.files = &context.graph().environment().files;
  setup.node = &context.node();
  PLATTER_CO_ASSIGN(setup.mode, parse_aio(options, flags));
  // With auto-read-only the first writer has it opened for writing.
  setup.writable = !flags.read_only && !flags.auto_read_only;
  setup.may_reopen = !flags.read_only && flags.auto_read_only;
  const io::OpenFlags how{.write = setup.writable, .direct = setup.direct};
  io::FileSystem& files = *setup.files;
  PLATTER_CO_ASSIGN(Opened opened, co_await io::Reactor::current()->call([&files, &setup, how] {
    return open_image_file(files, setup.path, how);
  }));
  PLATTER_CO_ASSIGN(setup.locking, decide_locking(options, *opened.file));
  co_return std::make_unique<FileDriver>(std::move(opened.file), opened.info, std::move(setup));
}

Result<base::Options> parse_file_name(std::string_view filename) {
  base::Options options;
  options.set("filename", std::string(filename.substr(filename.find(':') + 1)));
  return options;
}

constexpr std::array<std::string_view, 3> kAioChoices = {"threads", "native", "io_uring"};
constexpr std::array<std::string_view, 3> kLockingChoices = {"on", "off", "auto"};
constexpr base::OptionDef kRuntimeOptions[] = {
    {.name = "filename", .type = OptionType::kString, .help = "File name of the image"},
    {.name = "aio",
     .type = OptionType::kString,
     .help = "host AIO implementation (threads, native, io_uring)",
     .default_value = "io_uring",
     .choices = kAioChoices},
    {.name = "locking",
     .type = OptionType::kString,
     .help = "file locking mode (on/off/auto, default: auto)",
     .default_value = "auto",
     .choices = kLockingChoices},
};

}  // namespace

const DriverType kFile = {
    .name = "file",
    .kind = DriverKind::kProtocol,
    .runtime_options = base::OptionSchema(kRuntimeOptions),
    .create_options = kFileCreateSchema,
    .filename_prefix = "file",
    .parse_filename = parse_file_name,
    .open = open_file,
    .create = create_file,
};

}  // namespace platter::protocol
