#include "protocol/file/create.h"

#include <linux/fs.h>
#include <sys/ioctl.h>

#include <array>

#include <fmt/format.h>

#include "base/math.h"
#include "base/try.h"
#include "block/graph.h"
#include "io/file.h"
#include "protocol/file/image_locks.h"
#include "protocol/file/preallocate.h"

namespace platter::protocol {

using namespace block;
using base::OptionType;

namespace {

constexpr uint64_t kSectorBytes = 512;
constexpr uint32_t kNoCopyOnWrite = 0x00800000;  // FS_NOCOW_FL

constexpr std::array<std::string_view, 3> kPreallocationChoices = {"off", "falloc", "full"};
constexpr base::OptionDef kCreateOptions[] = {
    {.name = "size",
     .type = OptionType::kSize,
     .help = "Virtual disk size",
     .default_value = "0",
     .max = kMaxLength},
    {.name = "nocow",
     .type = OptionType::kBool,
     .help = "Turn off copy-on-write (valid only on btrfs)",
     .default_value = "off"},
    {.name = "preallocation",
     .type = OptionType::kString,
     .help = "Preallocation mode (allowed values: off, falloc, full)",
     .default_value = "off",
     .choices = kPreallocationChoices},
    {.name = "extent_size_hint",
     .type = OptionType::kSize,
     .help = "Extent size hint for the image file, 0 to disable",
     .default_value = "1M",
     .max = UINT32_MAX},
};

Preallocation preallocation_of(const std::string& word) {
  if (word == "falloc") return Preallocation::kFalloc;
  return word == "full" ? Preallocation::kFull : Preallocation::kOff;
}

// Only btrfs knows this; elsewhere it has no meaning, and no error.
void turn_off_copy_on_write(const io::File& file) {
  int attributes = 0;
  if (file.descriptor() < 0 || ioctl(file.descriptor(), FS_IOC_GETFLAGS, &attributes) != 0) return;
  attributes |= static_cast<int>(kNoCopyOnWrite);
  ioctl(file.descriptor(), FS_IOC_SETFLAGS, &attributes);
}

Result<void> hint_extent_size(const io::File& file, uint32_t bytes) {
  if (file.descriptor() < 0) return {};
  fsxattr attributes{};
  if (ioctl(file.descriptor(), FS_IOC_FSGETXATTR, &attributes) != 0) {
    return std::unexpected(Error::from_errno(errno));
  }
  attributes.fsx_xflags |= FS_XFLAG_EXTSIZE;
  attributes.fsx_extsize = bytes;
  if (ioctl(file.descriptor(), FS_IOC_FSSETXATTR, &attributes) != 0) {
    return std::unexpected(Error::from_errno(errno));
  }
  return {};
}

io::Task<Result<void>> fill_file(CreateContext& context, io::File& file, const std::string& path) {
  const base::OptionSet& options = context.options;
  PLATTER_CO_TRY(file.truncate(0));
  if (options.get_bool("nocow")) turn_off_copy_on_write(file);
  const uint64_t hint = options.get_size("extent_size_hint");
  if (hint != 0) {
    Result<void> hinted = hint_extent_size(file, static_cast<uint32_t>(hint));
    if (!hinted && options.given("extent_size_hint")) {
      context.graph.environment().log.warning(fmt::format(
          "Failed to set extent size hint of '{}': {}", path, hinted.error().message()));
    }
  }
  co_return co_await resize_regular_file(file, 0,
                                         base::align_up(options.get_size("size"), kSectorBytes),
                                         preallocation_of(options.get_string("preallocation")), {});
}

}  // namespace

const base::OptionSchema kFileCreateSchema{kCreateOptions};

io::Task<Result<void>> create_file(CreateContext& context) {
  std::string path = context.filename;
  if (path.starts_with("file:")) path.erase(0, 5);
  auto in_words = [&path](Error error) {
    return std::unexpected(
        Error::from_errno(error.code(), fmt::format("Could not create '{}'", path)));
  };
  auto file = context.graph.environment().files.open(path, {.write = true, .create = true});
  if (!file) co_return in_words(std::move(file).error());
  PLATTER_CO_ASSIGN(io::FileInfo info, (*file)->info());
  if (info.kind == io::FileKind::kBlockDevice) {
    const uint64_t size = context.options.get_size("size");
    if (info.size < size) {
      co_return fail(ENOSPC, fmt::format("'{}' is smaller than {} bytes", path, size));
    }
    co_return Result<void>();
  }
  if (info.kind != io::FileKind::kRegular) {
    co_return fail(EINVAL, fmt::format("'file' driver requires '{}' to be a regular file", path));
  }
  ImageLocks locks(**file, path);
  if (ImageLocks::supported(**file)) {
    // Whoever writes to the file, even one who lets others write, would lose what it has there.
    PLATTER_CO_TRY(locks.set(Permission::kWrite | Permission::kResize,
                             Permission::kConsistentRead | Permission::kWriteUnchanged));
  }
  context.begun = true;
  co_return co_await fill_file(context, **file, path);
}

}  // namespace platter::protocol
