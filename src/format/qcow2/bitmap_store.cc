// What an open image's bitmaps are, and how they are changed. Storing them stands in
// bitmap_writer.cc.

#include "format/qcow2/bitmap_store.h"

#include <algorithm>
#include <cerrno>

#include "base/try.h"
#include "fmt/format.h"

namespace platter::format::qcow2 {
namespace {

std::unexpected<Error> inconsistent(std::string_view name) {
  return std::unexpected(
      Error(EINVAL, fmt::format("Bitmap '{}' is inconsistent and cannot be used", name))
          .with_hint("Try block-dirty-bitmap-remove to delete this bitmap from disk"));
}

}  // namespace

io::Task<void> PersistentBitmaps::load(uint64_t disk_size, uint64_t max_bytes) {
  disk_size_ = disk_size;
  bytes_left_ = max_bytes;
  auto directory = co_await read_bitmap_directory(*image_.file, image_.header);
  if (!directory) {
    unreadable_ = std::move(directory).error();
    co_return;
  }
  directory_ = std::move(*directory);
  for (const Bitmap& record : directory_) {
    auto live = std::make_unique<Live>();
    live->record = record;
    live->enabled = record.has(kBitmapAuto);
    // One of another length was not resized with the disk.
    live->inconsistent =
        record.has(kBitmapInUse) ||
        record.table_entries != bitmap_clusters(disk_size, record.granularity(), image_.geometry);
    bitmaps_.push_back(std::move(live));
  }
  own_directory();
}

std::vector<block::BitmapInfo> PersistentBitmaps::list() const {
  std::vector<block::BitmapInfo> list;
  for (const auto& live : bitmaps_) {
    list.push_back({.name = live->record.name,
                    .granularity = live->record.granularity(),
                    .enabled = live->enabled,
                    .inconsistent = live->inconsistent});
  }
  return list;
}

// Each bitmap has the record in its place.
void PersistentBitmaps::own_directory() {
  PLATTER_ASSERT(directory_.size() == bitmaps_.size());
  owners_.clear();
  for (const auto& live : bitmaps_) owners_.push_back(live.get());
}

// One that can be used.
Result<PersistentBitmaps::Live*> PersistentBitmaps::find(std::string_view name) {
  const auto found =
      std::ranges::find_if(bitmaps_, [&](const auto& live) { return live->record.name == name; });
  if (found == bitmaps_.end() && unreadable_) return std::unexpected(*unreadable_);
  if (found == bitmaps_.end())
    return fail(ENOENT, fmt::format("Dirty bitmap '{}' not found", name));
  if ((*found)->inconsistent) return inconsistent(name);
  return found->get();
}

// ---- Changes

Result<void> PersistentBitmaps::add(std::string name, uint64_t granularity, bool enabled,
                                    uint64_t disk_size) {
  const auto refuse = [&](std::string_view why) {
    return fail(EINVAL, fmt::format("Can't make bitmap '{}' persistent in '{}': {}", name,
                                    image_.node->name(), why));
  };
  if (name.empty()) return fail(EINVAL, "Bitmap name cannot be empty");
  const bool exists =
      std::ranges::any_of(bitmaps_, [&](const auto& live) { return live->record.name == name; });
  if (exists) return fail(EEXIST, fmt::format("Bitmap already exists: {}", name));
  if (unreadable_) return refuse(unreadable_->message());
  if (name.size() > kMaxBitmapNameBytes) {
    return refuse(fmt::format("Name length exceeds maximum ({} characters)", kMaxBitmapNameBytes));
  }
  if (bitmaps_.size() >= kMaxBitmaps)
    return refuse("Maximum number of persistent bitmaps is already reached");
  if (disk_size == 0) return refuse("The disk has no bytes");
  auto made = block::DirtyBitmap::create(name, disk_size, granularity);
  if (!made && made.error().code() == EFBIG)
    return refuse("Too much space will be occupied by the bitmap. Use larger granularity");
  if (!made) return std::unexpected(std::move(made).error());
  auto live = std::make_unique<Live>();
  live->record.name = std::move(name);
  live->record.granularity_bits = static_cast<uint8_t>(std::countr_zero(granularity));
  live->keeps_stored = false;
  live->bits = std::move(*made);
  live->enabled = enabled;
  if (recording_ && enabled) start_recording(*live);
  // The newest one stands first among those that the file does not have yet.
  const auto place =
      std::ranges::find_if(bitmaps_, [](const auto& other) { return !other->has_table(); });
  bitmaps_.insert(place, std::move(live));
  return {};
}

Result<void> PersistentBitmaps::remove(std::string name) {
  const auto found =
      std::ranges::find_if(bitmaps_, [&](const auto& live) { return live->record.name == name; });
  if (found == bitmaps_.end())
    return fail(ENOENT, fmt::format("Dirty bitmap '{}' not found", name));
  stop_recording(**found);
  std::ranges::replace(owners_, found->get(), nullptr);
  bitmaps_.erase(found);
  return {};
}

Result<void> PersistentBitmaps::clear(std::string name) {
  PLATTER_ASSIGN(Live * live, find(name));
  live->keeps_stored = false;
  if (live->bits) live->bits->clear_all();
  return {};
}

Result<void> PersistentBitmaps::enable(std::string name, bool on) {
  PLATTER_ASSIGN(Live * live, find(name));
  if (live->enabled == on) return {};
  if (on) PLATTER_TRY(have_bits(*live));
  live->enabled = on;
  if (recording_ && on) start_recording(*live);
  if (!on) stop_recording(*live);
  return {};
}

Result<void> PersistentBitmaps::merge(std::string name, const block::DirtyBitmap& source) {
  PLATTER_ASSIGN(Live * live, find(name));
  PLATTER_TRY(have_bits(*live));
  return live->bits->merge(source);
}

io::Task<Result<std::shared_ptr<block::DirtyBitmap>>> PersistentBitmaps::bits(std::string name) {
  PLATTER_CO_ASSIGN(Live * live, find(name));
  PLATTER_CO_TRY(co_await load_bits(*live));
  co_return live->bits;
}

// ---- Bits in memory

Result<void> PersistentBitmaps::have_bits(Live& live) {
  if (live.bits) return {};
  PLATTER_ASSIGN(live.bits, block::DirtyBitmap::create(live.record.name, disk_size_,
                                                       live.record.granularity()));
  return {};
}

io::Task<Result<void>> PersistentBitmaps::load_bits(Live& live) {
  PLATTER_CO_TRY(have_bits(live));
  if (live.loaded || !live.keeps_stored) co_return Result<void>{};
  PLATTER_CO_ASSIGN(const auto table, co_await read_bitmap_table(*image_.file, image_.geometry,
                                                                 live.record, disk_size_));
  PLATTER_CO_TRY(take_memory(live, table));
  PLATTER_CO_TRY(co_await read_bitmap_bits(*image_.file, image_.geometry, table, *live.bits));
  live.loaded = true;
  co_return Result<void>{};
}

Result<void> PersistentBitmaps::take_memory(const Live& live, std::span<const uint64_t> table) {
  const auto clusters = static_cast<uint64_t>(table.size() - std::ranges::count(table, 0U));
  const uint64_t bytes = std::min(clusters << image_.geometry.cluster_bits,
                                  base::divide_round_up(live.bits->bits(), 8));
  if (bytes > bytes_left_) {
    return fail(ENOMEM,
                fmt::format("Bitmap '{}' takes {} bytes of memory, where {} are left of what "
                            "an image may have",
                            live.record.name, bytes, bytes_left_));
  }
  bytes_left_ -= bytes;
  return {};
}

void PersistentBitmaps::start_recording(Live& live) { image_.node->record_in(live.bits); }

void PersistentBitmaps::stop_recording(Live& live) {
  if (live.bits) image_.node->stop_recording_in(*live.bits);
}

// ---- Writing

void PersistentBitmaps::begin_writing() {
  recording_ = true;
  size_t recording = 0;
  for (const auto& live : bitmaps_) {
    if (!live->enabled || live->inconsistent) continue;
    if (++recording > kMaxRecording) {
      live->inconsistent = true;
      continue;
    }
    if (auto made = have_bits(*live); !made) {
      image_.log->warning(fmt::format("{}: qcow2: {}; it is from now on inconsistent",
                                      image_.node->filename(), made.error().message()));
      live->inconsistent = true;
      continue;
    }
    start_recording(*live);
  }
  if (recording > kMaxRecording) {
    image_.log->warning(
        fmt::format("{}: qcow2: {} bitmaps record, no more than {} can: the others are from now on "
                    "inconsistent",
                    image_.node->filename(), recording, kMaxRecording));
  }
}

void PersistentBitmaps::end_writing() {
  for (const auto& live : bitmaps_) stop_recording(*live);
  recording_ = false;
}

// Whether what the file says of a bitmap will not hold once the disk has been written to.
bool PersistentBitmaps::must_be_in_use(size_t index) const {
  if (directory_[index].has(kBitmapInUse)) return false;
  if (directory_[index].has(kBitmapAuto)) return true;
  const Live* live = owners_[index];
  return live != nullptr && (live->enabled || live->inconsistent || live->changed());
}

io::Task<Result<void>> PersistentBitmaps::prepare_write() {
  std::vector<bool> which;
  for (size_t i = 0; i < directory_.size(); ++i) which.push_back(must_be_in_use(i));
  if (std::ranges::find(which, true) == which.end()) co_return Result<void>{};
  co_return co_await write_in_use(std::move(which));
}

// In place: a record's flags never straddle two sectors, and the rest of it stays as it is.
io::Task<Result<void>> PersistentBitmaps::write_in_use(std::vector<bool> which) {
  if (!image_.header.bitmaps) co_return Result<void>{};
  std::vector<Bitmap> next = directory_;
  for (size_t i = 0; i < next.size(); ++i) {
    if (which[i]) next[i].flags |= kBitmapInUse;
  }
  const auto bytes = serialise_bitmap_directory(next);
  PLATTER_ASSERT(bytes.size() == image_.header.bitmaps->directory_size);
  directory_uncertain_ = true;
  PLATTER_CO_TRY(co_await image_.write_file(image_.header.bitmaps->directory_offset, bytes));
  PLATTER_CO_TRY(co_await image_.file->flush());
  directory_uncertain_ = false;
  directory_ = std::move(next);
  co_return Result<void>{};
}

io::Task<Result<void>> PersistentBitmaps::reload_places() {
  if (directory_.empty()) co_return Result<void>{};
  PLATTER_CO_ASSIGN(const auto now, co_await read_bitmap_directory(*image_.file, image_.header));
  if (!std::ranges::equal(now, directory_, {}, &Bitmap::name, &Bitmap::name))
    co_return fail(EIO, "qcow2: The directory of the bitmaps has changed");
  for (size_t i = 0; i < now.size(); ++i) {
    directory_[i].table_offset = now[i].table_offset;
    if (owners_[i] != nullptr) owners_[i]->record.table_offset = now[i].table_offset;
  }
  co_return Result<void>{};
}

// ---- Resizing

io::Task<Result<void>> PersistentBitmaps::prepare_resize(uint64_t disk_size) {
  for (const auto& live : bitmaps_) {
    if (live->inconsistent) co_return inconsistent(live->record.name);
  }
  if (bitmaps_.empty()) co_return Result<void>{};
  if (disk_size == 0)
    co_return fail(EINVAL, "An image with bitmaps cannot be resized to no bytes at all");
  for (const auto& live : bitmaps_) {
    PLATTER_CO_TRY(co_await load_bits(*live));
    PLATTER_CO_TRY(live->bits->check_size(disk_size));
  }
  const bool all_in_use = std::ranges::all_of(
      directory_, [](const Bitmap& record) { return record.has(kBitmapInUse); });
  if (all_in_use) co_return Result<void>{};
  co_return co_await write_in_use(std::vector<bool>(directory_.size(), true));
}

void PersistentBitmaps::resize(uint64_t disk_size) {
  disk_size_ = disk_size;
  for (const auto& live : bitmaps_) {
    if (live->inconsistent || !live->bits || live->bits->size() == disk_size) continue;
    live->keeps_stored = false;
    if (auto resized = live->bits->resize(disk_size); !resized) {
      image_.log->warning(fmt::format("{}: qcow2: {}; it is from now on inconsistent",
                                      image_.node->filename(), resized.error().message()));
      stop_recording(*live);
      live->inconsistent = true;
    }
  }
}

}  // namespace platter::format::qcow2
