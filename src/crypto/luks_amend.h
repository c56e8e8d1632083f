// Changing the key slots of a volume as an amend asks for it.
#pragma once

#include <functional>

#include "crypto/luks_options.h"

namespace platter::crypto {

// Looks a secret up by its id.
using SecretLookup = std::function<Result<base::SecretBytes>(std::string_view id)>;

// `volume_key` is what the volume was unlocked with. Without `force` no active slot is overwritten
// and the last way in is not erased.
io::Task<Result<void>> change_slots(LuksHeader& header, Medium& medium,
                                    const base::SecretBytes& volume_key, const SlotChange& change,
                                    const SecretLookup& secrets, bool force);

}  // namespace platter::crypto
