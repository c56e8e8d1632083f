// What users say about LUKS volumes: the words of create and amend options, typed and checked.
//
// The luks format has these options by their names; qcow2 has them below "encrypt.". Every function
// takes that prefix.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/options.h"
#include "crypto/luks_keys.h"

namespace platter::crypto {

// Of cipher-alg, cipher-mode, ivgen-alg, ivgen-hash-alg, hash-alg and iter-time.
Result<NewVolume> parse_new_volume(const base::OptionSet& options, std::string_view prefix);

struct SlotChange {
  bool activate = false;
  std::optional<uint64_t> slot = std::nullopt;
  std::optional<std::string> old_secret = std::nullopt;  // ids
  std::optional<std::string> new_secret = std::nullopt;
  std::optional<uint64_t> iter_time_ms = std::nullopt;
};
// Of state, keyslot, old-secret, new-secret and iter-time.
Result<SlotChange> parse_slot_change(const base::OptionSet& options, std::string_view prefix);

// What `info` says of a volume, in qemu-img's order. `format`, where not empty, is said too: what
// the volume is in is an image of another format.
void describe_volume(const LuksHeader& header, std::string_view format, base::Json& json);

}  // namespace platter::crypto
