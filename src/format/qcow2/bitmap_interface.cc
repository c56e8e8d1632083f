// What the driver offers of its bitmaps.

#include <fmt/format.h>

#include "base/try.h"
#include "format/qcow2/driver.h"

namespace platter::format::qcow2 {

// Which bitmaps the next write has to announce in the file may have changed.
Result<void> Qcow2::change_bitmaps(Result<void> changed) {
  write_prepared_.store(false, std::memory_order_release);
  return changed;
}

Result<void> Qcow2::add_bitmap(std::string name, uint64_t granularity, bool enabled) {
  PLATTER_TRY(check_writable());
  if (granularity == 0)
    granularity = block::DirtyBitmap::default_granularity(image_.geometry.cluster_size());
  return change_bitmaps(bitmaps_.add(std::move(name), granularity, enabled, size()));
}

Result<void> Qcow2::remove_bitmap(std::string name) {
  PLATTER_TRY(check_writable());
  return change_bitmaps(bitmaps_.remove(std::move(name)));
}

Result<void> Qcow2::clear_bitmap(std::string name) {
  PLATTER_TRY(check_writable());
  return change_bitmaps(bitmaps_.clear(std::move(name)));
}

Result<void> Qcow2::enable_bitmap(std::string name, bool on) {
  PLATTER_TRY(check_writable());
  return change_bitmaps(bitmaps_.enable(std::move(name), on));
}

Result<void> Qcow2::merge_bitmap(std::string name, const block::DirtyBitmap& source) {
  PLATTER_TRY(check_writable());
  return change_bitmaps(bitmaps_.merge(std::move(name), source));
}

io::Task<Result<std::shared_ptr<block::DirtyBitmap>>> Qcow2::bitmap_bits(std::string name) {
  return bitmaps_.bits(std::move(name));
}

io::Task<Result<void>> Qcow2::store_bitmaps() {
  if (!bitmaps_.needs_storing()) co_return Result<void>{};
  Result<void> stored;
  {
    auto lock = co_await image_.allocation.lock();
    stored = co_await prepare_counts();
  }
  if (stored) stored = co_await bitmaps_.store();
  if (!stored) {
    stored.error().add_context(
        fmt::format("Lost persistent bitmaps during inactivation of node "
                    "'{}'",
                    image_.node->name()));
  }
  // What they no longer use is freed in any case.
  PLATTER_CO_TRY(co_await settle());
  co_return stored;
}

}  // namespace platter::format::qcow2
