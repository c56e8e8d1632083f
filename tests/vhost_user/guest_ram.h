// The memory of a guest that has no processor: shared with a back-end by its file descriptor.
#pragma once

#include <cstdint>
#include <span>

#include "platter/error.h"
#include "vhost_user/descriptor.h"

namespace platter::front_end {

// Where a part of the memory lies: for the guest, in this process, and in the file.
struct Region {
  uint64_t guest_address;
  uint64_t bytes;
  uint64_t user_address;
  uint64_t offset;
};

class GuestRam {
 public:
  // Zeroes, at this address of the guest's.
  static Result<GuestRam> make(uint64_t guest_address, uint64_t bytes);

  GuestRam(GuestRam&& other) noexcept;
  GuestRam& operator=(GuestRam&&) = delete;
  ~GuestRam();

  int file() const { return file_.get(); }
  // All of it; and a piece of it, as several make up a memory table.
  Region region() const { return region(0, bytes_); }
  Region region(uint64_t offset, uint64_t bytes) const;

  // The caller stays within the memory.
  uint8_t* at(uint64_t guest_address) const { return host_ + (guest_address - guest_address_); }
  std::span<uint8_t> bytes(uint64_t guest_address, uint64_t count) const {
    return {at(guest_address), count};
  }
  uint64_t user_address(uint64_t guest_address) const {
    return reinterpret_cast<uint64_t>(at(guest_address));
  }

  // Guest addresses, one after the other and never given back; aborts where there are no more: a
  // test knows what it needs.
  uint64_t take(uint64_t bytes, uint64_t alignment = 64);

 private:
  GuestRam(Descriptor file, uint64_t guest_address, uint64_t bytes, uint8_t* host)
      : file_(std::move(file)), guest_address_(guest_address), bytes_(bytes), host_(host) {}

  Descriptor file_;
  uint64_t guest_address_;
  uint64_t bytes_;
  uint8_t* host_;
  uint64_t taken_ = 0;
};

}  // namespace platter::front_end
