#include "crypto/luks_amend.h"

#include <algorithm>
#include <cerrno>
#include <vector>

#include "base/try.h"
#include "fmt/format.h"

namespace platter::crypto {
namespace {

io::Task<Result<void>> activate(LuksHeader& header, Medium& medium,
                                const base::SecretBytes& volume_key, const SlotChange& change,
                                const SecretLookup& secrets, bool force) {
  size_t slot = 0;
  if (change.slot) {
    slot = *change.slot;
    if (header.slots[slot].active && !force) {
      co_return fail(
          EINVAL,
          fmt::format("Refusing to overwrite active keyslot {} - please erase it first", slot));
    }
  } else {
    const auto free = std::ranges::find(header.slots, false, &LuksSlot::active);
    if (free == header.slots.end())
      co_return fail(EINVAL, "Can't add a keyslot - all keyslots are in use");
    slot = static_cast<size_t>(free - header.slots.begin());
  }
  PLATTER_CO_ASSIGN(const auto passphrase, secrets(*change.new_secret));
  co_return co_await fill_slot(header, medium, slot, volume_key, passphrase,
                               change.iter_time_ms.value_or(kDefaultIterTimeMs));
}

io::Task<Result<void>> erase_one(LuksHeader& header, Medium& medium, size_t slot,
                                 const base::SecretBytes* old_passphrase, bool force) {
  if (old_passphrase != nullptr) {
    UnlockBudget budget;
    PLATTER_CO_ASSIGN(const auto key,
                      co_await open_slot(header, medium, slot, *old_passphrase, budget));
    if (!key) {
      co_return fail(EINVAL,
                     fmt::format("Given keyslot {} doesn't contain the given old password for "
                                 "erase operation",
                                 slot));
    }
  }
  if (!force && !header.slots[slot].active)
    co_return fail(EINVAL, fmt::format("Given keyslot {} is already erased (inactive) ", slot));
  if (!force && header.active_slots() == 1) {
    co_return fail(EINVAL,
                   fmt::format("Attempt to erase the only active keyslot {} which will erase all "
                               "the data in the image irreversibly - refusing operation",
                               slot));
  }
  co_return co_await erase_slot(header, medium, slot);
}

io::Task<Result<void>> erase_matching(LuksHeader& header, Medium& medium,
                                      const base::SecretBytes& old_passphrase, bool force) {
  std::vector<size_t> matching;
  UnlockBudget budget;
  for (size_t slot = 0; slot < kLuksSlots; ++slot) {
    PLATTER_CO_ASSIGN(const auto key,
                      co_await open_slot(header, medium, slot, old_passphrase, budget));
    if (key) matching.push_back(slot);
  }
  if (matching.empty())
    co_return fail(EINVAL, "No keyslots match given (old) password for erase operation");
  if (!force && matching.size() == header.active_slots()) {
    co_return fail(EINVAL,
                   "All the active keyslots match the (old) password that was given and erasing "
                   "them will erase all the data in the image irreversibly - refusing operation");
  }
  for (const size_t slot : matching) PLATTER_CO_TRY(co_await erase_slot(header, medium, slot));
  co_return Result<void>{};
}

}  // namespace

io::Task<Result<void>> change_slots(LuksHeader& header, Medium& medium,
                                    const base::SecretBytes& volume_key, const SlotChange& change,
                                    const SecretLookup& secrets, bool force) {
  if (change.activate)
    co_return co_await activate(header, medium, volume_key, change, secrets, force);
  std::optional<base::SecretBytes> old_passphrase;
  if (change.old_secret) {
    PLATTER_CO_ASSIGN(old_passphrase, secrets(*change.old_secret));
  }
  if (!change.slot) co_return co_await erase_matching(header, medium, *old_passphrase, force);
  co_return co_await erase_one(header, medium, *change.slot,
                               old_passphrase ? &*old_passphrase : nullptr, force);
}

}  // namespace platter::crypto
