// The create options of qcow2, as typed and validated values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/options.h"
#include "block/types.h"
#include "crypto/luks_keys.h"
#include "format/qcow2/header.h"

namespace platter::format::qcow2 {

struct CreateOptions {
  // Version, sizes, features and backing file; no table has a place yet.
  Header header;
  block::Preallocation preallocation = block::Preallocation::kOff;
  // Of an image whose header has a crypt method.
  std::optional<crypto::NewVolume> luks = std::nullopt;  // kLuks
  std::string key_secret = {};                           // an id
};

// Bytes of the header of LUKS; 0 without.
uint64_t encryption_bytes(const CreateOptions& options);

// Every rule between options, in qemu-img's words where it has any.
Result<CreateOptions> parse_create_options(const base::OptionSet& options);

}  // namespace platter::format::qcow2
