// Policy: which images are accepted. docs/inspect.md describes each rule and the JSON form.
//
// Two are built in. "default" accepts what can be opened, in the format that it was reported to
// have, without anything outside the image being touched. "openstack" accepts what OpenStack's
// image services accept. A third may be read from a file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "inspect/report.h"
#include "platter/error.h"

namespace platter::inspect {

// Which names of one kind an image may have in it.
enum class NamesAllowed {
  kNone,
  kRelative,  // plain paths from the image's directory that do not climb out of it by ".."
  kAny,
};

struct Policy {
  std::vector<std::string> formats;  // accepted; empty: all that are known
  // Of a format: its accepted subformats. A format that is not listed may have any.
  std::vector<std::pair<std::string, std::vector<std::string>>> subformats;
  NamesAllowed names[4] = {};  // by ReferenceKind
  std::vector<std::string> refused_features;
  bool unknown_features = false;
  bool several_formats = false;
  bool odd_partition_table = true;
  // Accepted encryptions; nullopt: all.
  std::optional<std::vector<std::string>> encryption;
  uint64_t max_virtual_size = UINT64_MAX;
  uint64_t max_file_size = UINT64_MAX;
  uint64_t max_snapshots = UINT64_MAX;
  uint64_t max_bitmaps = UINT64_MAX;
};

// Which rule an image breaks, by its name in the JSON form, and how: one sentence.
struct Violation {
  std::string rule;
  std::string reason;
};

// Nothing if no policy of that name is built in.
std::optional<Policy> builtin_policy(std::string_view name);
// Errors name the member that is wrong.
Result<Policy> parse_policy(std::string_view json_text);

// Empty: the image is accepted.
std::vector<Violation> judge(const Report& report, const Policy& policy);

}  // namespace platter::inspect
