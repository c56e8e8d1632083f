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

// Whether the list has the names of features: smaller clusters have no room to spare.
bool has_feature_names(const Header& header);
// Appends every extension that `header` has, the end marker included. `bytes` holds the fixed
// fields.
enum class FeatureNames { kIncluded, kLeftOut };
void append_extensions(const Header& header, std::vector<uint8_t>& bytes,
                       FeatureNames names = FeatureNames::kIncluded);
// One record of feature names, as many as the first sector has room for, which says that the list
// goes on at `offset`: what lies between is stepped over. From bytes.size() to `offset` it is a
// multiple of kRecordAlignment.
void append_step(const Header& header, std::vector<uint8_t>& bytes, uint64_t offset);

inline constexpr size_t kExtensionHeaderBytes = 8;  // of a record: type and length
inline constexpr size_t kRecordAlignment = 8;

// Where a record of a list stands, its end marker included: byte offsets into the cluster.
struct ExtensionPlace {
  size_t offset;
  size_t length;  // with the record's own header
  uint32_t type;
};
// Of fields in the data of extensions.
inline constexpr size_t kBitmapDirectoryOffsetField = 16;  // u64
inline constexpr size_t kCryptoHeaderOffsetField = 0;      // u64
// Where the record of one type stands in an image's first cluster, which was parsed. Of several
// records the last one, which is the one that counts.
std::optional<size_t> find_extension(std::span<const uint8_t> first_cluster, ExtensionType type);

// As far as the list can be followed.
std::vector<ExtensionPlace> extension_places(std::span<const uint8_t> first_cluster);

// Why an image with these unknown incompatible bits is refused, with the names that the image
// itself gives them. `extensions` may be malformed.
Error unknown_features(uint64_t unknown_bits, std::span<const uint8_t> extensions);

// The text of a field that is not terminated, cut at the first NUL.
std::string text_of(std::span<const uint8_t> bytes);

}  // namespace platter::format::qcow2
