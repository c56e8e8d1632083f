// The qcow2 on-disk layout below the header: what the bits of the tables mean.
//
// Everything here is pure arithmetic over values in host byte order (on disk they are
// big-endian). Specification: docs/format/qcow2.md, sections "Geometry", "Mapping" and
// "Reference counts".
#pragma once

#include <cstdint>

#include "base/assert.h"
#include "base/math.h"

namespace platter::format::qcow2 {

// ---- Limits (docs/format/qcow2.md, "Limits")

inline constexpr unsigned kMinClusterBits = 9;
inline constexpr unsigned kMaxClusterBits = 21;
inline constexpr unsigned kDefaultClusterBits = 16;
inline constexpr unsigned kMaxRefcountOrder = 6;
inline constexpr uint64_t kMaxL1TableBytes = uint64_t{32} << 20;
inline constexpr uint64_t kMaxRefcountTableBytes = uint64_t{8} << 20;
inline constexpr uint64_t kMaxSnapshotTableBytes = uint64_t{64} << 20;
inline constexpr uint32_t kMaxSnapshots = 65536;
inline constexpr uint32_t kMaxSnapshotExtraBytes = 1024;
inline constexpr uint32_t kSnapshotEntryBytes = 40;  // without extra data, id and name
inline constexpr uint32_t kMaxBackingNameBytes = 1023;
inline constexpr uint32_t kMaxFormatNameBytes = 15;
inline constexpr uint32_t kMaxBitmaps = 65535;
inline constexpr uint32_t kMaxBitmapTableEntries = 0x8000000;
inline constexpr uint32_t kMaxBitmapNameBytes = 1023;
inline constexpr uint64_t kMaxBitmapDirectoryBytes = uint64_t{1024} * kMaxBitmaps;
inline constexpr uint64_t kSectorBytes = 512;
// Host offsets have 56 bits in every table entry.
inline constexpr uint64_t kMaxHostOffset = (uint64_t{1} << 56) - 1;
inline constexpr uint64_t kTableEntryBytes = 8;  // of L1, L2, refcount and bitmap tables

// ---- Table entries

inline constexpr uint64_t kCopiedFlag = uint64_t{1} << 63;
inline constexpr uint64_t kCompressedFlag = uint64_t{1} << 62;
// Of version 3; without a meaning in entries that have subclusters.
inline constexpr uint64_t kZeroFlag = 1;
inline constexpr uint64_t kOffsetMask = 0x00fffffffffffe00;  // L1, L2 standard, bitmap tables
inline constexpr uint64_t kL1ReservedMask = 0x7f000000000001ff;
inline constexpr uint64_t kL2ReservedMask = 0x3f000000000001fe;  // of a standard entry
inline constexpr uint64_t kRefcountTableOffsetMask = ~uint64_t{0x1ff};
inline constexpr uint64_t kRefcountTableReservedMask = 0x1ff;
inline constexpr uint64_t kBitmapReservedMask = 0xff000000000001fe;

// With extended L2 entries: a cluster has so many subclusters, and an entry a second word that has
// two bits for each: whether it is allocated (the low half) and whether it reads as zeroes.
inline constexpr unsigned kSubclusterCountBits = 5;
inline constexpr unsigned kSubclusters = 1u << kSubclusterCountBits;
inline constexpr uint64_t kAllSubclusters = (uint64_t{1} << kSubclusters) - 1;
inline constexpr uint64_t kAllSubclustersZero = kAllSubclusters << kSubclusters;
inline constexpr unsigned kMinExtendedL2ClusterBits = 14;

// Sizes and indexes that follow from the header.
struct Geometry {
  unsigned cluster_bits = kDefaultClusterBits;
  unsigned refcount_order = 4;
  unsigned version = 3;
  bool extended_l2 = false;
  // Guest data is in another file, where each cluster has the offset that it has for the guest.
  bool external_data = false;

  constexpr uint64_t cluster_size() const { return uint64_t{1} << cluster_bits; }
  constexpr uint64_t offset_in_cluster(uint64_t offset) const {
    return offset & (cluster_size() - 1);
  }
  constexpr uint64_t align_down(uint64_t offset) const { return offset & ~(cluster_size() - 1); }
  constexpr bool is_aligned(uint64_t offset) const { return offset_in_cluster(offset) == 0; }
  // How many clusters hold `bytes`.
  constexpr uint64_t clusters_for(uint64_t bytes) const {
    return (bytes >> cluster_bits) + (offset_in_cluster(bytes) != 0);
  }

  // Entries of kTableEntryBytes that fill a cluster.
  constexpr uint64_t table_entries() const { return cluster_size() / kTableEntryBytes; }
  constexpr unsigned l2_entry_words() const { return extended_l2 ? 2 : 1; }
  constexpr uint64_t l2_entry_bytes() const { return l2_entry_words() * kTableEntryBytes; }
  // The unit of allocation: a cluster where there are no subclusters.
  constexpr unsigned subcluster_bits() const {
    return extended_l2 ? cluster_bits - kSubclusterCountBits : cluster_bits;
  }
  constexpr uint64_t subcluster_size() const { return uint64_t{1} << subcluster_bits(); }
  constexpr unsigned subcluster_index(uint64_t offset) const {
    return static_cast<unsigned>(offset_in_cluster(offset) >> subcluster_bits());
  }

  constexpr unsigned l2_bits() const { return cluster_bits - (extended_l2 ? 4 : 3); }
  constexpr uint64_t l2_entries() const { return uint64_t{1} << l2_bits(); }
  // Guest bytes that one L2 table maps.
  constexpr uint64_t l2_coverage() const { return uint64_t{1} << (cluster_bits + l2_bits()); }
  constexpr uint64_t l1_index(uint64_t guest_offset) const {
    return guest_offset >> (cluster_bits + l2_bits());
  }
  constexpr uint64_t l2_index(uint64_t guest_offset) const {
    return (guest_offset >> cluster_bits) & (l2_entries() - 1);
  }
  constexpr uint64_t l1_entries_for(uint64_t virtual_size) const {
    return (virtual_size >> (cluster_bits + l2_bits())) +
           ((virtual_size & (l2_coverage() - 1)) != 0);
  }

  constexpr unsigned refcount_bits() const { return 1u << refcount_order; }
  constexpr uint64_t max_refcount() const {
    return refcount_order == 6 ? UINT64_MAX : (uint64_t{1} << refcount_bits()) - 1;
  }
  constexpr unsigned refcount_block_bits() const { return cluster_bits + 3 - refcount_order; }
  constexpr uint64_t refcount_block_entries() const { return uint64_t{1} << refcount_block_bits(); }
  constexpr uint64_t refcount_table_index(uint64_t cluster) const {
    return cluster >> refcount_block_bits();
  }
  constexpr uint64_t refcount_block_index(uint64_t cluster) const {
    return cluster & (refcount_block_entries() - 1);
  }
};

// ---- Mapping

// What a cluster or, with extended L2 entries, a subcluster is.
enum class ClusterKind : uint8_t {
  kUnallocated,    // the backing file decides; zeroes without one
  kReserved,       // the same, but keeps a place in a host cluster (subclusters only)
  kZero,           // reads as zeroes, no host cluster
  kZeroAllocated,  // reads as zeroes, keeps a host cluster
  kNormal,
  kCompressed,
  kInvalid,  // host offset not aligned, a zero flag in a version 2 image, a bitmap that cannot be
};

constexpr bool has_host(ClusterKind kind) {
  return kind == ClusterKind::kNormal || kind == ClusterKind::kZeroAllocated ||
         kind == ClusterKind::kReserved;
}
constexpr bool shows_backing(ClusterKind kind) {
  return kind == ClusterKind::kUnallocated || kind == ClusterKind::kReserved;
}

struct Cluster {
  ClusterKind kind = ClusterKind::kUnallocated;
  bool copied = false;       // exactly one reference: may be written in place
  uint64_t host_offset = 0;  // has_host(): of the cluster; kInvalid: as found
};

// Whether a standard entry names a host cluster. In a data file the first cluster is at offset 0.
constexpr bool names_host(uint64_t entry, const Geometry& geometry) {
  return (entry & kOffsetMask) != 0 || (geometry.external_data && (entry & kCopiedFlag) != 0);
}

constexpr Cluster decode_l2_entry(uint64_t entry, const Geometry& geometry) {
  if (entry & kCompressedFlag) return {ClusterKind::kCompressed, false, 0};
  const uint64_t offset = entry & kOffsetMask;
  const bool copied = entry & kCopiedFlag;
  const bool zero = entry & kZeroFlag;
  if (!geometry.is_aligned(offset) || (zero && geometry.version < 3)) {
    return {ClusterKind::kInvalid, copied, offset};
  }
  if (zero) return {offset ? ClusterKind::kZeroAllocated : ClusterKind::kZero, copied, offset};
  const bool host = names_host(entry, geometry);
  return {host ? ClusterKind::kNormal : ClusterKind::kUnallocated, copied, offset};
}

// An extended L2 entry.
struct ExtendedEntry {
  uint64_t entry = 0;
  uint64_t bitmap = 0;

  constexpr uint64_t allocated() const { return bitmap & kAllSubclusters; }
  constexpr uint64_t zeroes() const { return bitmap >> kSubclusters; }
  bool operator==(const ExtendedEntry&) const = default;
};

// The subclusters [first, end) as bits of one half of a bitmap.
constexpr uint64_t subcluster_mask(unsigned first, unsigned end) {
  return ((uint64_t{1} << end) - 1) & ~((uint64_t{1} << first) - 1);
}

constexpr bool bitmap_is_valid(const ExtendedEntry& entry, const Geometry& geometry) {
  if (entry.entry & kCompressedFlag) return entry.bitmap == 0;
  return (entry.allocated() & entry.zeroes()) == 0 &&
         (entry.allocated() == 0 || names_host(entry.entry, geometry));
}

constexpr Cluster decode_subcluster(const ExtendedEntry& entry, unsigned index,
                                    const Geometry& geometry) {
  if (entry.entry & kCompressedFlag) return {ClusterKind::kCompressed, false, 0};
  const uint64_t offset = entry.entry & kOffsetMask;
  const bool copied = entry.entry & kCopiedFlag;
  if (!geometry.is_aligned(offset) || !bitmap_is_valid(entry, geometry)) {
    return {ClusterKind::kInvalid, copied, offset};
  }
  const bool host = names_host(entry.entry, geometry);
  const uint64_t bit = uint64_t{1} << index;
  if (entry.zeroes() & bit)
    return {host ? ClusterKind::kZeroAllocated : ClusterKind::kZero, copied, offset};
  if (entry.allocated() & bit) return {ClusterKind::kNormal, copied, offset};
  return {host ? ClusterKind::kReserved : ClusterKind::kUnallocated, copied, offset};
}

// Where a compressed cluster's data lies: from a byte offset to the end of its last sector. The
// stream itself may end anywhere in that sector.
struct CompressedSpan {
  uint64_t host_offset = 0;
  uint64_t length = 0;
};

// The bits of a compressed entry that hold the host offset: [0, x).
constexpr unsigned compressed_offset_bits(unsigned cluster_bits) { return 62 - (cluster_bits - 8); }

constexpr CompressedSpan decode_compressed(uint64_t entry, unsigned cluster_bits) {
  const unsigned x = compressed_offset_bits(cluster_bits);
  const uint64_t offset = entry & ((uint64_t{1} << x) - 1);
  const uint64_t sectors = ((entry >> x) & ((uint64_t{1} << (62 - x)) - 1)) + 1;
  return {offset, sectors * kSectorBytes - (offset & (kSectorBytes - 1))};
}

// The inverse: `length` bytes of stream at `host_offset`. The caller has checked that both fit.
constexpr uint64_t encode_compressed(uint64_t host_offset, uint64_t length, unsigned cluster_bits) {
  const unsigned x = compressed_offset_bits(cluster_bits);
  const uint64_t last = host_offset + length - 1;
  const uint64_t additional = last / kSectorBytes - host_offset / kSectorBytes;
  PLATTER_ASSERT(host_offset >> x == 0 && additional >> (62 - x) == 0);
  return kCompressedFlag | (additional << x) | host_offset;
}

// ---- Reference counts of one block, any width. Sub-byte counts fill a byte from its least
// significant bit; wider ones are big-endian. `index` is below refcount_block_entries().

inline uint64_t load_refcount(const uint8_t* block, uint64_t index, unsigned order) {
  if (order < 3) {
    const unsigned per_byte_bits = 3 - order;
    const unsigned shift = (index & ((1u << per_byte_bits) - 1)) << order;
    return (block[index >> per_byte_bits] >> shift) & ((1u << (1u << order)) - 1);
  }
  const unsigned bytes = 1u << (order - 3);
  uint64_t value = 0;
  for (unsigned i = 0; i < bytes; ++i) value = (value << 8) | block[index * bytes + i];
  return value;
}

inline void store_refcount(uint8_t* block, uint64_t index, unsigned order, uint64_t value) {
  if (order < 3) {
    const unsigned per_byte_bits = 3 - order;
    const unsigned shift = (index & ((1u << per_byte_bits) - 1)) << order;
    const unsigned mask = ((1u << (1u << order)) - 1) << shift;
    uint8_t& byte = block[index >> per_byte_bits];
    byte = static_cast<uint8_t>((byte & ~mask) | ((value << shift) & mask));
    return;
  }
  const unsigned bytes = 1u << (order - 3);
  for (unsigned i = bytes; i-- > 0; value >>= 8)
    block[index * bytes + i] = static_cast<uint8_t>(value);
}

}  // namespace platter::format::qcow2
