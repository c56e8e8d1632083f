// The state of a virtual machine, kept as if the disk went on behind the tables that it takes.

#include <cerrno>

#include "base/math.h"
#include "base/try.h"
#include "block/unflushed.h"
#include "format/qcow2/driver.h"

namespace platter::format::qcow2 {

io::Task<Result<void>> Qcow2::read_vm_state(uint64_t offset, io::BufferList buffers) {
  if (!base::range_within(offset, buffers.size(), kMaxHostOffset))
    return io::Task<Result<void>>::ready(fail_errno(EFBIG));
  return read_slow(vm_state_offset() + offset, buffers);
}

io::Task<Result<void>> Qcow2::write_vm_state(uint64_t offset, io::BufferList buffers) {
  PLATTER_CO_TRY(check_writable());
  // Far from what no L1 table covers: grow_mapping() knows the limit.
  if (!base::range_within(offset, buffers.size(), kMaxHostOffset)) co_return fail_errno(EFBIG);
  const uint64_t at = vm_state_offset() + offset;
  {
    auto turn = co_await maintenance_.lock();
    {
      auto lock = co_await image_.allocation.lock();
      PLATTER_CO_TRY(co_await prepare_allocation());
    }
    PLATTER_CO_TRY(co_await grow_mapping(at + buffers.size()));
  }
  auto written = co_await write_slow(at, buffers);
  block::note_written(*image_.node);
  co_return written;
}

}  // namespace platter::format::qcow2
