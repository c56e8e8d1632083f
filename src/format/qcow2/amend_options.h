// What amend may change about an image, typed and checked against the image and each other.
#pragma once

#include <cstdint>
#include <optional>

#include "base/options.h"
#include "crypto/luks_options.h"
#include "format/qcow2/header.h"
#include "platter/error.h"

namespace platter::format::qcow2 {

struct Amendment {
  unsigned version = 3;
  unsigned refcount_order = 4;
  bool lazy_refcounts = false;
  std::optional<uint64_t> size = std::nullopt;
  std::string data_file = {};  // empty: no name is recorded
  bool data_file_raw = false;
  std::optional<crypto::SlotChange> slots = std::nullopt;  // of LUKS
};

base::OptionSchema amend_options();

// Every rule, in qemu-img's words where it has any.
Result<Amendment> parse_amendment(const base::OptionSet& options, const Header& header);

}  // namespace platter::format::qcow2
