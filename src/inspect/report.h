// Report: what an inspection finds out about an image. Facts only; a Policy judges them.
//
// A report crosses from the sandbox as JSON. report_from_json() trusts none of it: every member is
// checked for its type and its limits, unknown ones are errors.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "platter/error.h"

namespace platter::inspect {

enum class ReferenceKind { kBackingFile, kDataFile, kExtent, kParent };

// Something outside the image that it names. It is never looked at.
struct Reference {
  ReferenceKind kind = ReferenceKind::kBackingFile;
  std::string name;    // as the image has it
  std::string format;  // of what is named, if the image says so
  bool operator==(const Reference&) const = default;
};
std::string_view reference_kind_name(ReferenceKind kind);  // "backing-file", ...

// What a name that stands in an image would be taken for.
enum class NameForm { kRelativePath, kAbsolutePath, kProtocol, kJson };
NameForm name_form(std::string_view name);
std::string_view name_form_name(NameForm form);  // "relative", "absolute", "protocol", "json"

struct Report {
  static constexpr size_t kMaxListed = 64;       // members of any list that are listed
  static constexpr size_t kMaxTextBytes = 2048;  // of one name or sentence

  std::string format;     // as QEMU names it: "qcow2", "vpc", ...; "raw" if nothing is recognised
  std::string subformat;  // vmdk, vpc, vdi: which kind
  std::optional<uint64_t> version;
  uint64_t file_size = 0;                // bytes
  std::optional<uint64_t> virtual_size;  // bytes that a guest sees; none: could not be told
  uint64_t cluster_size = 0;             // bytes; 0: the format has none

  // Other formats that the same bytes would be taken for, too.
  std::vector<std::string> also;
  // What a disk without a format of its own holds: "mbr", "gpt", "iso9660".
  std::vector<std::string> content;

  std::vector<std::string> features;          // in use, by name
  std::vector<std::string> unknown_features;  // "incompatible bit 9 'name'"
  std::string compression;                    // "zlib", "zstd", "deflate"; empty: none possible
  std::string encryption;                     // "aes", "luks", "luks1", ...; empty: none
  std::vector<Reference> references;
  uint64_t references_total = 0;  // also those not listed
  std::vector<std::string> snapshots;
  uint64_t snapshots_total = 0;
  std::vector<std::string> bitmaps;
  uint64_t bitmaps_total = 0;

  // What is wrong with its structure, a sentence each; not everything wrong needs to be found.
  std::vector<std::string> damage;
  // What is odd about its partition table.
  std::vector<std::string> partition_damage;

  void add_reference(ReferenceKind kind, std::string name, std::string reference_format = {});
  void add_damage(std::string sentence);
  bool operator==(const Report&) const = default;
};

base::Json report_to_json(const Report& report);
Result<Report> report_from_json(const base::Json& json);

// Text from an image as a terminal may show it: control characters and what is not UTF-8 are
// written as \xNN.
std::string printable(std::string_view text);
// At most Report::kMaxTextBytes of it, up to the first NUL.
std::string bounded_text(std::string_view text);

}  // namespace platter::inspect
