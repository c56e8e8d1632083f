#include "block/driver.h"

#include "base/try.h"
#include "block/node_state.h"

namespace platter::block {

io::Task<Result<void>> Driver::write(uint64_t, io::BufferList, WriteFlags) {
  return io::Task<Result<void>>::ready(fail_errno(ENOTSUP));
}
io::Task<Result<void>> Driver::zero(uint64_t, uint64_t, WriteFlags) {
  return io::Task<Result<void>>::ready(fail_errno(ENOTSUP));
}
io::Task<Result<void>> Driver::discard(uint64_t, uint64_t) {
  return io::Task<Result<void>>::ready(fail_errno(ENOTSUP));
}
io::Task<Result<void>> Driver::flush() { return io::Task<Result<void>>::ready(Result<void>()); }
io::Task<Result<void>> Driver::close() { return io::Task<Result<void>>::ready(Result<void>()); }
io::Task<Result<uint64_t>> Driver::allocated_size() {
  return io::Task<Result<uint64_t>>::ready(fail_errno(ENOTSUP));
}
io::Task<Result<CheckResult>> Checkable::repair(CheckReporter&, Repair) {
  return io::Task<Result<CheckResult>>::ready(fail(ENOTSUP, "This format cannot be repaired"));
}
Result<void> Driver::set_permissions(Permissions, Permissions) { return {}; }

Driver::ChildPermissions Driver::child_permissions(const Child& child, Permissions needed,
                                                   Permissions shared) const {
  return permissions_by_role(child, needed, shared);
}

static Driver::ChildPermissions backing_permissions(Permissions needed, Permissions shared) {
  // The overlay may change what it reads from here by changing itself; nobody else may, unless
  // whoever uses the overlay is prepared for that.
  Permissions share = Permission::kConsistentRead | Permission::kWriteUnchanged;
  if (shared.has(Permission::kWrite)) share |= Permission::kWrite | Permission::kResize;
  return {needed & Permission::kConsistentRead, share};
}

Driver::ChildPermissions permissions_by_role(const Child& child, Permissions needed,
                                             Permissions shared) {
  const ChildRoles roles = child.roles();
  if (roles.has(ChildRole::kCow)) return backing_permissions(needed, shared);
  if (roles.has(ChildRole::kMetadata)) {
    // A format may write metadata although its user only reads, and reads it before it has a user.
    const Node::State& parent = child.parent()->state();
    if (!parent.flags.read_only) needed |= Permission::kWrite | Permission::kResize;
    if (!parent.flags.no_io) needed |= Permission::kConsistentRead;
    shared = shared.without(Permission::kWrite | Permission::kResize);
  }
  if (roles.has(ChildRole::kData)) {
    shared = shared.without(Permission::kResize);
    if (needed.has(Permission::kWriteUnchanged)) needed |= Permission::kWrite;
    if (needed.has(Permission::kWrite)) needed |= Permission::kResize;
  }
  return {needed, shared};
}

}  // namespace platter::block
