#include "vhost_user/guest_ram.h"

#include <sys/mman.h>

#include <cerrno>

#include "base/assert.h"
#include "base/math.h"
#include "base/try.h"

namespace platter::front_end {

Result<GuestRam> GuestRam::make(uint64_t guest_address, uint64_t bytes) {
  Descriptor file(memfd_create("guest", MFD_CLOEXEC));
  if (!file || ftruncate(file.get(), static_cast<off_t>(bytes)) != 0) return fail_errno(errno);
  void* host = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  if (host == MAP_FAILED) return fail_errno(errno);
  return GuestRam(std::move(file), guest_address, bytes, static_cast<uint8_t*>(host));
}

GuestRam::GuestRam(GuestRam&& other) noexcept
    : file_(std::move(other.file_)),
      guest_address_(other.guest_address_),
      bytes_(other.bytes_),
      host_(std::exchange(other.host_, nullptr)),
      taken_(other.taken_) {}

GuestRam::~GuestRam() {
  if (host_ != nullptr) munmap(host_, bytes_);
}

Region GuestRam::region(uint64_t offset, uint64_t bytes) const {
  return {.guest_address = guest_address_ + offset,
          .bytes = bytes,
          .user_address = reinterpret_cast<uint64_t>(host_) + offset,
          .offset = offset};
}

uint64_t GuestRam::take(uint64_t bytes, uint64_t alignment) {
  taken_ = base::align_up(taken_, alignment);
  PLATTER_ASSERT(taken_ <= bytes_ && bytes <= bytes_ - taken_);
  const uint64_t offset = taken_;
  taken_ += bytes;
  return guest_address_ + offset;
}

}  // namespace platter::front_end
