// What commit and rebase ask of an image: to let go of what it holds, and to name another backing
// file. No request is in flight.

#include "base/try.h"
#include "format/qcow2/driver.h"
#include "format/qcow2/header_rewrite.h"

namespace platter::format::qcow2 {

// What has been let go of shows the backing file again, so a cut in power leaves an image that is
// emptied in part.
io::Task<Result<void>> Qcow2::make_empty() {
  PLATTER_CO_TRY(check_writable());
  const Geometry& geometry = image_.geometry;
  auto turn = co_await maintenance_.lock();
  {
    auto lock = co_await image_.allocation.lock();
    PLATTER_CO_TRY(co_await prepare_allocation());
  }
  const uint64_t end = mapped_end();
  if (end != 0)
    PLATTER_CO_TRY(co_await zero_range(0, end, Release::kToBacking, FreeReason::kShrink));
  PLATTER_CO_TRY(co_await drop_tables(0));
  // Advice, as nothing shows it any more, durably: what the file cannot discard stays allocated in
  // it.
  if (geometry.external_data && image_.data->size() != 0)
    (void)co_await image_.data->discard(0, image_.data->size());
  co_return Result<void>{};
}

io::Task<Result<void>> Qcow2::change_backing_reference(block::BackingReference reference) {
  PLATTER_CO_TRY(check_writable());
  auto lock = co_await image_.allocation.lock();
  auto features = co_await image_.features.lock();
  Header next = image_.header;
  next.backing_file = std::move(reference.filename);
  next.backing_format = next.backing_file.empty() ? std::string() : std::move(reference.format);
  if (next.backing_format.size() > kMaxFormatNameBytes)
    co_return fail(EINVAL, "Backing file format name too long");
  co_return co_await replace_header(image_, std::move(next));
}

}  // namespace platter::format::qcow2
