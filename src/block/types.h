// The small types that requests, nodes and drivers share.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace platter::block {

class Node;

// A set of flags over an enum of single bits.
template <typename Bit>
class Flags {
 public:
  constexpr Flags() = default;
  constexpr Flags(Bit bit) : bits_(static_cast<uint32_t>(bit)) {}
  constexpr bool has(Bit bit) const { return bits_ & static_cast<uint32_t>(bit); }
  constexpr bool contains(Flags other) const { return (bits_ & other.bits_) == other.bits_; }
  constexpr bool empty() const { return bits_ == 0; }
  constexpr uint32_t bits() const { return bits_; }
  constexpr Flags operator|(Flags other) const { return from_bits(bits_ | other.bits_); }
  constexpr Flags operator&(Flags other) const { return from_bits(bits_ & other.bits_); }
  constexpr Flags without(Flags other) const { return from_bits(bits_ & ~other.bits_); }
  constexpr Flags& operator|=(Flags other) { return *this = *this | other; }
  constexpr bool operator==(const Flags&) const = default;
  static constexpr Flags from_bits(uint32_t bits) {
    Flags flags;
    flags.bits_ = bits;
    return flags;
  }

 private:
  uint32_t bits_ = 0;
};

// ---- Requests

enum class WriteFlag : uint32_t {
  kFua = 1,             // on stable storage before it completes
  kMayUnmap = 2,        // zero: the range may be deallocated
  kNoFallback = 4,      // zero: fail with ENOTSUP rather than write zeroes as data
  kWriteUnchanged = 8,  // does not change what a reader sees (needs only that permission)
  kCompressed = 16,     // store it compressed (Limits::compressed_alignment says where)
  kSerialising = 32,    // no overlapping request runs at the same time
};
using WriteFlags = Flags<WriteFlag>;
constexpr WriteFlags operator|(WriteFlag a, WriteFlag b) { return WriteFlags(a) | b; }

// The largest read or write, in bytes (zero and discard may be longer).
inline constexpr uint64_t kMaxRequest = (uint64_t{1} << 31) - 512;
// The largest image, in bytes.
inline constexpr uint64_t kMaxLength = (uint64_t{1} << 63) - (uint64_t{1} << 30);

// What a run of bytes is. `length` bytes from the offset asked share it; 0 < length.
struct BlockStatus {
  uint64_t length = 0;
  bool data = false;  // this layer stores data for it
  bool zero = false;  // it reads as zeroes
  bool allocated =
      false;  // this layer, not its backing file, decides what it reads as; true if data is
  bool compressed = false;
  bool eof = false;  // the run ends at the end of the node
  bool has_host_offset = false;
  uint64_t host_offset = 0;  // where `host` keeps the run's first byte
  Node* host = nullptr;
  bool descend = false;  // data whose host may know better whether it is a hole (kPrecise asks it)
  bool operator==(const BlockStatus&) const = default;
};

// How precise a status must be: kFast may call data what in fact reads zero. kHoles knows holes,
// but may call all data from where it finds some: looking for its end can take long.
enum class StatusDetail { kFast, kHoles, kPrecise };

// Capabilities are data, cached per node. Zero means no limit, unless said otherwise.
struct Limits {
  uint32_t request_alignment = 1;  // of offsets and lengths; power of two; never 0
  uint32_t memory_alignment = 1;   // of buffers; power of two; never 0
  uint32_t max_transfer = 0;       // bytes
  uint32_t optimal_transfer = 0;   // bytes
  uint32_t max_iovecs = 1024;
  uint64_t discard_alignment = 0;  // granularity of useful discards
  uint64_t max_discard = 0;
  uint64_t zero_alignment = 0;  // granularity of efficient zeroing
  uint64_t max_zero = 0;
  // Compressed writes begin and end at multiples of this, or at the end of the node, and only where
  // nothing is allocated yet (EIO otherwise). 0: the driver has none (ENOTSUP).
  uint64_t compressed_alignment = 0;
  bool supports_fua = false;
  bool supports_unmap_zero = false;  // zero() with kMayUnmap does better than without
  bool supports_fast_zero = false;   // zero() costs less than a write, in kNoFallback's sense
  bool variable_length = false;      // size() may change under us
  bool extends_on_write = false;     // a write past the end grows the node
};

// ---- Permissions and roles

enum class Permission : uint32_t {
  kConsistentRead = 1,
  kWrite = 2,
  kWriteUnchanged = 4,
  kResize = 8,
};
using Permissions = Flags<Permission>;
constexpr Permissions operator|(Permission a, Permission b) { return Permissions(a) | b; }
inline constexpr Permissions kAllPermissions = Permissions::from_bits(15);
// "consistent read, write": the names that conflict messages use.
std::string permission_names(Permissions permissions);

enum class ChildRole : uint32_t {
  kData = 1,
  kMetadata = 2,
  kFiltered = 4,
  kCow = 8,
  kPrimary = 16,
};
using ChildRoles = Flags<ChildRole>;
constexpr ChildRoles operator|(ChildRole a, ChildRole b) { return ChildRoles(a) | b; }
inline constexpr ChildRoles kImageRole = ChildRoles::from_bits(1 | 2 | 16);

enum class Preallocation { kOff, kMetadata, kFalloc, kFull };

enum class DetectZeroes { kOff, kOn, kUnmap };

}  // namespace platter::block
