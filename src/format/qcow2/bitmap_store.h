// The persistent dirty bitmaps of an open image: recorded in while it is written to, stored when it
// is closed.
//
// Opening reads the directory alone. A bitmap that records gets an empty one in memory, which the
// node marks; what the file has of it is added where somebody asks for its bits, and otherwise when
// it is stored, cluster by cluster. Before the first write of guest data the bitmaps that are to
// record it are marked "in use" in the file: after a crash they are not trusted. A bitmap's
// changes, its making and its removal count from the moment when they are stored, all of them
// together; what the disk is written to meanwhile makes every bitmap in use that then differs from
// the file.
//
// Called with no request in flight and by one caller at a time, but for prepare_write(): first in
// line of the first write.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "block/dirty_bitmap.h"
#include "block/driver.h"
#include "format/qcow2/bitmaps.h"
#include "format/qcow2/free_queue.h"
#include "format/qcow2/image.h"
#include "format/qcow2/refcounts.h"
#include "format/qcow2/writeback.h"

namespace platter::format::qcow2 {

class PersistentBitmaps {
 public:
  // More are not recorded in: each takes address space, and time of every write.
  static constexpr size_t kMaxRecording = 4096;

  PersistentBitmaps(Image& image, Refcounts& refcounts, FreeQueue& frees, WriteBack& writeback)
      : image_(image), refcounts_(refcounts), frees_(frees), writeback_(writeback) {}

  // A directory that cannot be read spoils nothing else: there are no bitmaps then, and the first
  // write makes them untrusted. `disk_size`: of the guest's disk, as everywhere here.
  // `max_bytes`: of bits that the file has, held in memory at a time.
  io::Task<void> load(uint64_t disk_size, uint64_t max_bytes);
  // What is wrong with the directory; null: nothing.
  const Error* unreadable() const { return unreadable_ ? &*unreadable_ : nullptr; }
  // As it is on disk.
  const std::vector<Bitmap>& directory() const { return directory_; }
  std::vector<block::BitmapInfo> list() const;
  bool empty() const { return bitmaps_.empty(); }

  // ---- Changes. The messages are those that a person who named the bitmap reads.
  Result<void> add(std::string name, uint64_t granularity, bool enabled, uint64_t disk_size);
  Result<void> remove(std::string name);
  Result<void> clear(std::string name);
  Result<void> enable(std::string name, bool on);
  Result<void> merge(std::string name, const block::DirtyBitmap& source);
  // All its bits, those of the file included.
  io::Task<Result<std::shared_ptr<block::DirtyBitmap>>> bits(std::string name);

  // ---- What the driver does
  // From here on bitmaps that record do.
  void begin_writing();
  // The other way round: everything has been stored.
  void end_writing();
  // Both under the allocation mutex.
  io::Task<Result<void>> prepare_write();
  // Has all bits in memory, and no bitmap trusted until it is stored. Refused where one could not
  // be resized.
  io::Task<Result<void>> prepare_resize(uint64_t disk_size);
  void resize(uint64_t disk_size);
  // Takes over where the directory in the file says that the tables are: clusters were moved.
  io::Task<Result<void>> reload_places();
  bool needs_storing() const;
  // Writes what has changed to new clusters, and then the directory; names it in the header. What
  // it replaces is in the queue of the freed. On failure the bitmaps in the file are those from
  // before, "in use" if they were.
  io::Task<Result<void>> store();

 private:
  struct Live {
    Bitmap record;  // as it will be stored; its table as on disk, no entries: none
    bool enabled = false;
    bool inconsistent = false;
    bool keeps_stored = true;                  // the file's bits count too
    bool loaded = false;                       // and are in `bits`
    std::shared_ptr<block::DirtyBitmap> bits;  // null: nothing has been marked, nor asked for
    bool has_table() const { return record.table_entries != 0; }
    bool changed() const { return !keeps_stored || !has_table() || (bits && bits->changed()); }
  };
  struct HostClusters {
    uint64_t offset;
    uint64_t count;
  };

  Result<Live*> find(std::string_view name);
  Result<void> have_bits(Live& live);
  io::Task<Result<void>> load_bits(Live& live);
  Result<void> take_memory(const Live& live, std::span<const uint64_t> table);
  void start_recording(Live& live);
  void stop_recording(Live& live);
  bool must_be_in_use(size_t index) const;
  void own_directory();
  io::Task<Result<void>> write_in_use(std::vector<bool> which);

  // bitmap_writer.cc
  io::Task<Result<void>> write_new(std::vector<Bitmap>& records);
  io::Task<Result<Bitmap>> store_bits(Live& live);
  io::Task<Result<std::vector<uint64_t>>> write_bits(Live& live, std::vector<uint64_t> old);
  io::Task<Result<size_t>> write_clusters(Live& live, std::vector<uint64_t>& table,
                                          std::span<const size_t> indexes);
  io::Task<Result<uint64_t>> write_contiguous(std::vector<uint8_t> bytes);
  io::Task<Result<HostRun>> allocate(uint64_t clusters, bool contiguous);
  io::Task<void> give_back();
  io::Task<Result<void>> replace_table(Bitmap record, std::span<const uint64_t> kept);

  Image& image_;
  Refcounts& refcounts_;
  FreeQueue& frees_;
  WriteBack& writeback_;
  uint64_t disk_size_ = 0;
  uint64_t bytes_left_ = 0;  // of max_bytes
  bool recording_ = false;
  std::optional<Error> unreadable_;
  std::vector<Bitmap> directory_;
  std::vector<Live*> owners_;         // of its records; null: removed since
  bool directory_uncertain_ = false;  // a write of it failed
  std::vector<std::unique_ptr<Live>> bitmaps_;
  // While storing.
  std::vector<HostClusters> allocated_, replaced_;
  std::optional<BitmapsExtension> new_directory_;
};

}  // namespace platter::format::qcow2
