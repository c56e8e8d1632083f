// Storing bitmaps: everything that differs goes to clusters that nothing refers to, then the
// directory, and a write of the header makes all of it count.

#include <algorithm>
#include <cerrno>

#include "base/bytes.h"
#include "base/try.h"
#include "fmt/format.h"
#include "format/qcow2/bitmap_store.h"
#include "format/qcow2/header_rewrite.h"

namespace platter::format::qcow2 {
namespace {

constexpr uint64_t kMaxWriteBytes = uint64_t{1} << 20;
constexpr uint64_t kTablePart = 65536;  // entries that are looked at together

// Names another directory, or none; durable when it returns. Under the allocation mutex.
io::Task<Result<void>> publish_bitmaps(Image& image, std::optional<BitmapsExtension> directory) {
  auto features = co_await image.features.lock();
  Header next = image.header;
  next.bitmaps = directory;
  next.bitmaps_out_of_step = false;
  next.autoclear &= ~uint64_t{kBitmapsValid};
  if (directory) next.autoclear |= kBitmapsValid;
  PLATTER_CO_TRY(co_await replace_header(image, std::move(next)));
  if (directory)
    image.guard.claim(kBitmapDirectory, directory->directory_offset, directory->directory_size);
  co_return Result<void>{};
}

}  // namespace

bool PersistentBitmaps::needs_storing() const {
  if (unreadable_) return false;
  if (directory_uncertain_ || directory_.size() != bitmaps_.size()) return true;
  for (size_t i = 0; i < directory_.size(); ++i) {
    const Live* live = owners_[i];
    if (live == nullptr) return true;
    if (live->inconsistent) continue;
    const Bitmap& stored = directory_[i];
    if (stored.has(kBitmapInUse) || stored.has(kBitmapAuto) != live->enabled || live->changed())
      return true;
  }
  return false;
}

io::Task<Result<void>> PersistentBitmaps::store() {
  allocated_.clear();
  replaced_.clear();
  std::vector<Bitmap> records;
  auto written = co_await write_new(records);
  if (!written) {
    co_await give_back();
    co_return written;
  }
  {
    // Where this fails nobody knows which directory counts: the clusters of both stay in use.
    auto lock = co_await image_.allocation.lock();
    PLATTER_CO_TRY(co_await publish_bitmaps(image_, new_directory_));
    for (const HostClusters& run : replaced_) frees_.add(run.offset, run.count, FreeReason::kOther);
    image_.changed(0);
  }
  directory_ = std::move(records);
  directory_uncertain_ = false;
  for (size_t i = 0; i < bitmaps_.size(); ++i) {
    Live& live = *bitmaps_[i];
    live.record = directory_[i];
    live.loaded = live.loaded || !live.keeps_stored;
    live.keeps_stored = true;
    if (live.bits) live.bits->set_changed(false);
  }
  own_directory();
  co_return Result<void>{};
}

// Everything that the header will name, and the counts of it, are durable afterwards.
io::Task<Result<void>> PersistentBitmaps::write_new(std::vector<Bitmap>& records) {
  for (const auto& live : bitmaps_) {
    PLATTER_CO_ASSIGN(Bitmap record, co_await store_bits(*live));
    records.push_back(std::move(record));
  }
  for (size_t i = 0; i < directory_.size(); ++i) {
    if (owners_[i] == nullptr) PLATTER_CO_TRY(co_await replace_table(directory_[i], {}));
  }
  if (image_.header.bitmaps) {
    replaced_.push_back({image_.header.bitmaps->directory_offset,
                         image_.geometry.clusters_for(image_.header.bitmaps->directory_size)});
  }
  new_directory_.reset();
  if (!records.empty()) {
    auto bytes = serialise_bitmap_directory(records);
    if (bytes.size() > kMaxBitmapDirectoryBytes)
      co_return fail(EFBIG, "The directory of the bitmaps would become too large");
    BitmapsExtension next = {.count = static_cast<uint32_t>(records.size()),
                             .directory_size = bytes.size()};
    PLATTER_CO_ASSIGN(next.directory_offset, co_await write_contiguous(std::move(bytes)));
    new_directory_ = next;
  }
  co_return co_await writeback_.flush_all();
}

// The record of a bitmap, what it refers to written.
io::Task<Result<Bitmap>> PersistentBitmaps::store_bits(Live& live) {
  Bitmap record = live.record;
  record.flags &= ~(kBitmapAuto | kBitmapInUse);
  if (live.enabled) record.flags |= kBitmapAuto;
  std::vector<uint64_t> old;
  if (!live.inconsistent && live.changed() && live.keeps_stored && !live.loaded) {
    auto table = co_await read_bitmap_table(*image_.file, image_.geometry, live.record, disk_size_);
    if (!table && table.error().code() != EINVAL)
      co_return std::unexpected(std::move(table).error());
    if (!table) {
      image_.log->warning(fmt::format("{}: qcow2: {}; it is from now on inconsistent",
                                      image_.node->filename(), table.error().message()));
      live.inconsistent = true;
    } else {
      old = std::move(*table);
    }
  }
  if (live.inconsistent) record.flags |= kBitmapInUse;
  if (live.inconsistent || !live.changed()) co_return record;
  PLATTER_CO_ASSIGN(const auto table, co_await write_bits(live, std::move(old)));
  if (live.has_table()) PLATTER_CO_TRY(co_await replace_table(live.record, table));
  std::vector<uint8_t> bytes(table.size() * kTableEntryBytes);
  for (size_t i = 0; i < table.size(); ++i)
    base::store_big<uint64_t>(bytes, i * kTableEntryBytes, table[i]);
  record.table_entries = static_cast<uint32_t>(table.size());
  PLATTER_CO_ASSIGN(record.table_offset, co_await write_contiguous(std::move(bytes)));
  co_return record;
}

// The new table of a bitmap. `old`: the one whose bits count too; empty: there is none. Clusters of
// bits in which nothing was marked stay where they are.
io::Task<Result<std::vector<uint64_t>>> PersistentBitmaps::write_bits(Live& live,
                                                                      std::vector<uint64_t> old) {
  const uint64_t per_cluster = image_.geometry.cluster_size() * 8;
  std::vector<uint64_t> table = std::move(old);
  table.resize(bitmap_clusters(disk_size_, live.record.granularity(), image_.geometry));
  if (!live.bits) co_return table;
  const block::BitTree& tree = live.bits->tree();
  std::vector<size_t> indexes;  // of those that need a new one
  for (uint64_t bit = tree.next_set(0); bit < tree.size();) {
    const size_t index = bit / per_cluster;
    const uint64_t first = index * per_cluster;
    const bool all = tree.next_clear(first) >= first + per_cluster;
    if (all) {
      table[index] = kBitmapAllOnes;
    } else if (table[index] != kBitmapAllOnes) {
      indexes.push_back(index);
    }
    bit = tree.next_set(first + per_cluster);
  }
  for (size_t done = 0; done < indexes.size();) {
    PLATTER_CO_ASSIGN(const size_t written,
                      co_await write_clusters(live, table, std::span(indexes).subspan(done)));
    done += written;
  }
  co_return table;
}

// Writes the first of these clusters of bits, as many as lie together in the file; how many.
io::Task<Result<size_t>> PersistentBitmaps::write_clusters(Live& live, std::vector<uint64_t>& table,
                                                           std::span<const size_t> indexes) {
  const uint64_t cluster_size = image_.geometry.cluster_size();
  const uint64_t most = std::max<uint64_t>(kMaxWriteBytes / cluster_size, 1);
  PLATTER_CO_ASSIGN(const HostRun run,
                    co_await allocate(std::min<uint64_t>(indexes.size(), most), false));
  io::AlignedBuffer buffer(run.clusters * cluster_size);
  for (uint64_t i = 0; i < run.clusters; ++i) {
    const size_t index = indexes[i];
    const auto bytes = buffer.span().subspan(i * cluster_size, cluster_size);
    const uint64_t first = index * cluster_size * 8;
    if (table[index] != 0) {
      PLATTER_CO_TRY(co_await image_.file->read(table[index], io::BufferList(bytes)));
      live.bits->tree().load(first, bytes);
    }
    live.bits->tree().store(first, bytes);
  }
  PLATTER_CO_TRY(co_await image_.file->write(run.offset, buffer.view()));
  for (uint64_t i = 0; i < run.clusters; ++i) table[indexes[i]] = run.offset + i * cluster_size;
  co_return run.clusters;
}

io::Task<Result<uint64_t>> PersistentBitmaps::write_contiguous(std::vector<uint8_t> bytes) {
  const Geometry& geometry = image_.geometry;
  const uint64_t clusters = geometry.clusters_for(bytes.size());
  bytes.resize(clusters << geometry.cluster_bits);
  PLATTER_CO_ASSIGN(const HostRun run, co_await allocate(clusters, true));
  PLATTER_CO_TRY(co_await image_.write_file(run.offset, bytes));
  co_return run.offset;
}

io::Task<Result<HostRun>> PersistentBitmaps::allocate(uint64_t clusters, bool contiguous) {
  if (writeback_.under_pressure()) PLATTER_CO_TRY(co_await writeback_.flush());
  auto lock = co_await image_.allocation.lock();
  auto run = contiguous ? co_await refcounts_.allocate_contiguous(clusters)
                        : co_await refcounts_.allocate(clusters);
  if (run) allocated_.push_back({run->offset, run->clusters});
  co_return run;
}

io::Task<void> PersistentBitmaps::give_back() {
  auto lock = co_await image_.allocation.lock();
  for (const HostClusters& run : allocated_) {
    auto released = co_await refcounts_.release(run.offset, run.count);
    if (!released) image_.log->warning("qcow2: Clusters leaked: " + released.error().message());
  }
}

// Queues a table to be freed, and of its clusters of bits those that `kept`, the table in its
// place, does not have. What is wrong in it is left alone: a check tells.
io::Task<Result<void>> PersistentBitmaps::replace_table(Bitmap record,
                                                        std::span<const uint64_t> kept) {
  const Geometry& geometry = image_.geometry;
  if (!base::range_within(record.table_offset, record.table_bytes(), image_.file->size()))
    co_return Result<void>{};
  for (uint64_t first = 0; first < record.table_entries; first += kTablePart) {
    const uint64_t count = std::min<uint64_t>(kTablePart, record.table_entries - first);
    PLATTER_CO_ASSIGN(const auto part,
                      co_await read_bitmap_table_part(*image_.file, record, first, count));
    for (uint64_t i = 0; i < count; ++i) {
      const bool stays = first + i < kept.size() && kept[first + i] == part[i];
      if (stays || (part[i] & kOffsetMask) == 0 ||
          !bitmap_entry_is_valid(part[i], geometry, image_.file->size())) {
        continue;
      }
      replaced_.push_back({part[i], 1});
    }
  }
  replaced_.push_back({record.table_offset, geometry.clusters_for(record.table_bytes())});
  co_return Result<void>{};
}

}  // namespace platter::format::qcow2
