// The qcow2 header: bytes to a typed value and back.
//
// parse_header() checks every field against a named limit, once; code that holds a Header may
// rely on what it checked:
//   - version 2 or 3, kMinClusterBits <= cluster_bits <= kMaxClusterBits, refcount_order <= 6;
//   - the L1 and the refcount table are cluster-aligned, within their size limits, end below 2^63;
//     the L1 covers the virtual size (they may still lie outside the file: tables are read later);
//   - the snapshot table likewise; the backing name lies inside the first cluster;
//   - no unknown incompatible bit is set; compression type and its bit agree.
// Specification: docs/format/qcow2.md, "Header" and "Header extensions".
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "format/qcow2/layout.h"
#include "io/task.h"
#include "platter/error.h"

namespace platter::block {
class Child;
}

namespace platter::format::qcow2 {

inline constexpr uint32_t kMagic = 0x514649fb;  // "QFI\xfb"
inline constexpr uint32_t kHeaderBytesV2 = 72;
inline constexpr uint32_t kMinHeaderBytesV3 = 104;
inline constexpr uint32_t kHeaderBytesV3 = 112;  // what we write

// Byte offsets of the fields that a live image updates in place.
namespace field {
inline constexpr uint64_t kVersion = 4;               // u32
inline constexpr uint64_t kBackingNameOffset = 8;     // u64
inline constexpr uint64_t kBackingNameBytes = 16;     // u32
inline constexpr uint64_t kL1Entries = 36;            // u32, then the L1 offset: 12 bytes together
inline constexpr uint64_t kL1TableOffset = 40;        // u64
inline constexpr uint64_t kRefcountTableOffset = 48;  // u64, then clusters u32: 12 bytes together
inline constexpr uint64_t kRefcountTableClusters = 56;  // u32
inline constexpr uint64_t kSnapshotCount = 60;          // u32
inline constexpr uint64_t kSnapshotsOffset = 64;        // u64
inline constexpr uint64_t kSize = 24;                   // u64
inline constexpr uint64_t kIncompatible = 72;           // u64
inline constexpr uint64_t kCompatible = 80;             // u64
inline constexpr uint64_t kAutoclear = 88;              // u64
inline constexpr uint64_t kRefcountOrder = 96;          // u32
inline constexpr uint64_t kHeaderLength = 100;          // u32; does not change in place
}  // namespace field

enum Incompatible : uint64_t {
  kDirty = 1 << 0,
  kCorrupt = 1 << 1,
  kExternalDataFile = 1 << 2,
  kCompressionTypeBit = 1 << 3,
  kExtendedL2 = 1 << 4,
};
inline constexpr uint64_t kKnownIncompatible = 0x1f;
enum Compatible : uint64_t { kLazyRefcounts = 1 << 0 };
enum Autoclear : uint64_t { kBitmapsValid = 1 << 0, kRawExternalData = 1 << 1 };
inline constexpr uint64_t kKnownAutoclear = 0x3;

enum class CryptMethod : uint32_t { kNone = 0, kAes = 1, kLuks = 2 };
enum class CompressionType : uint8_t { kDeflate = 0, kZstd = 1 };

enum class ExtensionType : uint32_t {
  kEnd = 0,
  kBackingFormat = 0xe2792aca,
  kDataFile = 0x44415441,
  kCryptoHeader = 0x0537be77,
  kFeatureNames = 0x6803f857,
  kBitmaps = 0x23852875,
};

struct CryptoHeaderPointer {
  uint64_t offset = 0;
  uint64_t length = 0;
  bool operator==(const CryptoHeaderPointer&) const = default;
};

struct BitmapsExtension {
  uint32_t count = 0;
  uint64_t directory_size = 0;
  uint64_t directory_offset = 0;
  bool operator==(const BitmapsExtension&) const = default;
};

struct UnknownExtension {
  uint32_t type = 0;
  std::vector<uint8_t> data;
  bool operator==(const UnknownExtension&) const = default;
};

struct Header {
  uint32_t version = 3;
  uint32_t cluster_bits = kDefaultClusterBits;
  uint64_t size = 0;  // as stored
  CryptMethod crypt_method = CryptMethod::kNone;
  uint32_t l1_entries = 0;
  uint64_t l1_table_offset = 0;
  uint64_t refcount_table_offset = 0;
  uint32_t refcount_table_clusters = 0;
  uint32_t snapshot_count = 0;
  uint64_t snapshots_offset = 0;
  uint64_t incompatible = 0;
  uint64_t compatible = 0;
  uint64_t autoclear = 0;
  uint32_t refcount_order = 4;
  CompressionType compression_type = CompressionType::kDeflate;
  // Header bytes beyond those that we know, kept for a rewrite.
  std::vector<uint8_t> unknown_fields;

  std::string backing_file;    // empty: none
  std::string backing_format;  // empty: not recorded
  std::string data_file;
  std::optional<CryptoHeaderPointer> crypto_header;
  // Only while the autoclear bit says that they are in step with the data.
  std::optional<BitmapsExtension> bitmaps;
  bool bitmaps_out_of_step = false;  // the extension is there, the autoclear bit is not
  std::vector<UnknownExtension> unknown_extensions;

  Geometry geometry() const {
    return {cluster_bits, refcount_order, version, has(kExtendedL2), has(kExternalDataFile)};
  }
  uint64_t cluster_size() const { return uint64_t{1} << cluster_bits; }
  unsigned refcount_bits() const { return 1u << refcount_order; }
  // What a guest sees: whole sectors.
  uint64_t virtual_size() const { return size & ~(kSectorBytes - 1); }
  uint64_t l1_bytes() const { return uint64_t{l1_entries} * kTableEntryBytes; }
  uint64_t refcount_table_bytes() const {
    return uint64_t{refcount_table_clusters} << cluster_bits;
  }
  uint64_t refcount_table_entries() const { return refcount_table_bytes() / kTableEntryBytes; }
  bool has(Incompatible bit) const { return incompatible & bit; }
  bool has(Compatible bit) const { return compatible & bit; }
  bool has(Autoclear bit) const { return autoclear & bit; }
  bool operator==(const Header&) const = default;
};

struct ParseOptions {
  // For a check: lets through a missing refcount table and a bad snapshot table, which a check is
  // there to report.
  bool tolerate_damage = false;
  // L1 and refcount table together.
  uint64_t max_metadata_bytes = UINT64_MAX;
};

// `bytes` is the first cluster; what the file lacks of it is zero. Shorter than the cluster size
// that it declares is EINVAL.
Result<Header> parse_header(std::span<const uint8_t> bytes, const ParseOptions& options);

// The cluster size that the first kMinHeaderBytesV3 bytes or more declare; the checks are those of
// parse_header.
Result<uint64_t> declared_cluster_size(std::span<const uint8_t> bytes);

// Reads and parses the header of the image in `file`. A short file reads as zeroes past its end.
io::Task<Result<Header>> read_header(block::Child& file, ParseOptions options);

// Refuses what is recognised but contradicts itself too much for I/O. Describing such an image
// (info) works without.
Result<void> check_supported(const Header& header);

// The fixed fields alone; no backing file is named in them.
std::vector<uint8_t> serialise_fields(const Header& header);
// Says in `fields` that the name of the backing file is at `offset`.
void place_backing_name(const Header& header, uint64_t offset, std::span<uint8_t> fields);

// The header and its extensions as they go to offset 0, at most one cluster; the feature name table
// is written for version 3 with clusters above 4 KiB. ENOSPC if they do not fit. What a parse has
// kept (unknown extensions, fields and feature bits) comes back unchanged.
Result<std::vector<uint8_t>> serialise_header(const Header& header);

// Probe score (0 or 100) of the first bytes of a file.
int probe_header(std::span<const uint8_t> head);

}  // namespace platter::format::qcow2
