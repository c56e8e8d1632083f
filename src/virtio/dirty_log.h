// DirtyLog: which pages of a guest's memory a device has written to, a bit each, in memory that the
// machine's monitor shares (the vhost-user protocol, "Migration"): what a live migration has to
// copy again.
//
// Thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <utility>

namespace platter::virtio {

class DirtyLog {
 public:
  static constexpr uint64_t kPageBytes = 4096;

  // Bit 0 of byte 0 is the page of address 0. `keep` keeps the memory.
  DirtyLog(std::span<uint8_t> bits, std::shared_ptr<const void> keep)
      : bits_(bits), keep_(std::move(keep)) {}

  // Pages that the log has no bit for are left out.
  void mark(uint64_t guest_address, uint64_t bytes) {
    if (bytes == 0) return;
    const uint64_t end = bits_.size() * 8;
    const uint64_t first = guest_address / kPageBytes;
    const uint64_t last = (guest_address + (bytes - 1)) / kPageBytes;
    for (uint64_t page = first; page <= last && page < end; ++page) {
      __atomic_fetch_or(&bits_[page / 8], static_cast<uint8_t>(1U << page % 8), __ATOMIC_RELEASE);
    }
  }

 private:
  const std::span<uint8_t> bits_;
  const std::shared_ptr<const void> keep_;
};

}  // namespace platter::virtio
