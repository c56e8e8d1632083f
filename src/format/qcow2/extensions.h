// Header extensions: typed records between the header's fixed fields and the backing file name.
// Specification: docs/format/qcow2.md, "Header extensions".
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "format/qcow2/header.h"
#include "platter/error.h"

namespace platter::format::qcow2 {

// Fills in what `bytes` (from the end of the fixed fields to the backing file name, or to the end
// of the first cluster) says. `header` has its fixed fields. Records of unknown type are kept
// verbatim.
Result<void> parse_extensions(std::span<const uint8_t> bytes, Header& header);

// Appends every extension that `header` has, the end marker included. `bytes` holds the fixed
// fields.
void append_extensions(const Header& header, std::vector<uint8_t>& bytes);

inline constexpr size_t kExtensionHeaderBytes = 8;  // of a record: type and length
inline constexpr size_t kBitmapsExtensionBytes = 24;
// Of fields in the data of extensions.
inline constexpr size_t kBitmapDirectoryOffsetField = 16;  // u64
inline constexpr size_t kCryptoHeaderOffsetField = 0;      // u64
std::vector<uint8_t> serialise_bitmaps_extension(const BitmapsExtension& bitmaps);

// Where the record of one type stands in an image's first cluster, byte offsets into it.
struct ExtensionPlace {
  std::optional<size_t> record;
  size_t data_bytes = 0;  // of the record
  bool is_last = false;   // the end marker follows it
  std::optional<size_t> end_marker;
};
// Of several records the last one, which is the one that counts. `first_cluster` was parsed.
ExtensionPlace find_extension(std::span<const uint8_t> first_cluster, ExtensionType type);

// Why an image with these unknown incompatible bits is refused, with the names that the image
// itself gives them. `extensions` may be malformed.
Error unknown_features(uint64_t unknown_bits, std::span<const uint8_t> extensions);

// The text of a field that is not terminated, cut at the first NUL.
std::string text_of(std::span<const uint8_t> bytes);

}  // namespace platter::format::qcow2
