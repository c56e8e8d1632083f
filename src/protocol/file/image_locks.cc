#include "protocol/file/image_locks.h"

#include <bit>

#include <fmt/format.h>

#include "base/try.h"

namespace platter::protocol {

using block::Permissions;

namespace {

constexpr uint64_t kHeldBase = 100;
constexpr uint64_t kUnsharedBase = 200;

// Calls fn(bit number, that permission alone) for each permission of the set.
template <typename Fn>
Result<void> for_each_permission(Permissions permissions, Fn fn) {
  for (uint32_t left = permissions.bits(); left != 0; left &= left - 1) {
    const unsigned bit = static_cast<unsigned>(std::countr_zero(left));
    PLATTER_TRY(fn(bit, Permissions::from_bits(1U << bit)));
  }
  return {};
}

}  // namespace

bool ImageLocks::supported(io::File& file) {
  auto free = file.test_lock(kHeldBase, 1, io::LockKind::kShared);
  return free || free.error().code() == EAGAIN;
}

Result<void> ImageLocks::lock_bytes(uint64_t base, Permissions bits, io::LockKind kind) {
  return for_each_permission(bits, [&](unsigned bit, Permissions) -> Result<void> {
    Result<void> locked = file_.lock(base + bit, 1, kind);
    if (locked) return {};
    return fail(locked.error().code(), fmt::format("Failed to {} byte {}: {}",
                                                   kind == io::LockKind::kNone ? "unlock" : "lock",
                                                   base + bit, locked.error().message()));
  });
}

Result<void> ImageLocks::test(Permissions held, Permissions unshared) {
  auto refuse = [this](const char* shared, Permissions permission) {
    return std::unexpected(
        Error(EAGAIN, fmt::format("Failed to get {}\"{}\" lock", shared,
                                  block::permission_names(permission)))
            .with_hint(fmt::format("Is another process using the image [{}]?", name_)));
  };
  PLATTER_TRY(for_each_permission(held, [&](unsigned bit, Permissions one) -> Result<void> {
    if (file_.test_lock(kUnsharedBase + bit, 1, io::LockKind::kExclusive)) return {};
    return refuse("", one);
  }));
  return for_each_permission(unshared, [&](unsigned bit, Permissions one) -> Result<void> {
    if (file_.test_lock(kHeldBase + bit, 1, io::LockKind::kExclusive)) return {};
    return refuse("shared ", one);
  });
}

Result<void> ImageLocks::set(Permissions held, Permissions shared) {
  const Permissions unshared = block::kAllPermissions.without(shared);
  const Permissions new_held = held.without(held_);
  const Permissions new_unshared = unshared.without(unshared_);
  Result<void> taken = lock_bytes(kHeldBase, new_held, io::LockKind::kShared);
  if (taken) taken = lock_bytes(kUnsharedBase, new_unshared, io::LockKind::kShared);
  if (taken && !(new_held | new_unshared).empty()) taken = test(held, unshared);
  if (!taken) {
    PLATTER_TRY(lock_bytes(kHeldBase, new_held, io::LockKind::kNone));
    PLATTER_TRY(lock_bytes(kUnsharedBase, new_unshared, io::LockKind::kNone));
    return taken;
  }
  PLATTER_TRY(lock_bytes(kHeldBase, held_.without(held), io::LockKind::kNone));
  PLATTER_TRY(lock_bytes(kUnsharedBase, unshared_.without(unshared), io::LockKind::kNone));
  held_ = held;
  unshared_ = unshared;
  return {};
}

}  // namespace platter::protocol
