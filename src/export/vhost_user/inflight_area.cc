#include "export/vhost_user/inflight_area.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/math.h"
#include "base/try.h"

namespace platter::vhost_user {
namespace {

uint64_t bytes_of(const InflightDescription& description, bool packed) {
  return description.queues * virtio::inflight_bytes(packed, description.queue_size);
}

}  // namespace

Result<io::Descriptor> InflightArea::make(InflightDescription& description) {
  description.bytes = bytes_of(description, true);
  description.file_offset = 0;
  io::Descriptor file(memfd_create("platter-inflight", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file || ftruncate(file.get(), static_cast<off_t>(description.bytes)) != 0 ||
      fcntl(file.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return std::unexpected(
        Error::from_errno(errno, "Could not make memory for requests in flight"));
  return file;
}

Result<std::shared_ptr<InflightArea>> InflightArea::map(const InflightDescription& description,
                                                        const io::Descriptor& file) {
  struct stat status;
  if (fstat(file.get(), &status) != 0) return std::unexpected(Error::from_errno(errno));
  const auto end = base::checked_add(description.file_offset, description.bytes);
  if (!end || *end > static_cast<uint64_t>(std::max<off_t>(status.st_size, 0))) {
    return fail(EINVAL, fmt::format("{:#x} bytes at {:#x} of a file of {:#x}", description.bytes,
                                    description.file_offset, status.st_size));
  }
  if (!base::is_aligned(description.file_offset, sizeof(uint64_t)))
    return fail(EINVAL, fmt::format("memory at the odd place {:#x}", description.file_offset));
  if (description.bytes < bytes_of(description, false)) {
    return fail(EINVAL, fmt::format("{} bytes for requests in flight of {} queues of {} entries",
                                    description.bytes, description.queues, description.queue_size));
  }
  const uint64_t bytes = std::min(description.bytes, bytes_of(description, true));
  PLATTER_ASSIGN(auto mapping, io::SharedMapping::map(file.get(), description.file_offset, bytes));
  return std::shared_ptr<InflightArea>(new InflightArea(description, std::move(mapping)));
}

Result<virtio::InflightMemory> InflightArea::queue(uint32_t index, bool packed) {
  const uint64_t bytes = virtio::inflight_bytes(packed, description_.queue_size);
  if (index >= description_.queues)
    return fail(EINVAL, fmt::format("requests in flight of {} queues only", description_.queues));
  if (packed_.value_or(packed) != packed)
    return fail(EINVAL, "requests in flight of rings of the other kind");
  if (mapping_->size() < bytes_of(description_, packed))
    return fail(EINVAL, "too little memory for requests in flight of packed rings");
  packed_ = packed;
  return virtio::InflightMemory{.bytes = {mapping_->data() + index * bytes, bytes},
                                .entries = description_.queue_size,
                                .keep = mapping_};
}

void InflightArea::forget() {
  for (uint32_t i = 0; i < description_.queues; ++i) forget(i);
}

void InflightArea::forget(uint32_t index) {
  if (!packed_ || index >= description_.queues) return;
  const uint64_t bytes = virtio::inflight_bytes(*packed_, description_.queue_size);
  virtio::forget_inflight(mapping_->data() + index * bytes);
}

}  // namespace platter::vhost_user
