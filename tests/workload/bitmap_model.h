// BitmapModel: what an image's dirty bitmaps may say, now and after a power cut.
//
// There are two sets of them: those that the image had when it was last closed, and those that it
// has now. Changes count together, from the next close on; so after a cut the image has the one set
// or the other, or none that it trusts. A bitmap is found inconsistent, or it has everything that
// was written while it recorded: the old set's too, as far as it was recording.
//
// written() may be called from any thread; everything else while no request is in flight.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "block/dirty_bitmap.h"
#include "block/driver.h"
#include "io/task.h"
#include "workload/random.h"

namespace platter::workload {

class BitmapModel {
 public:
  explicit BitmapModel(uint64_t size) : size_(size) {}

  // A request that may have changed the range has ended. `surely`: it is marked in any case.
  void written(uint64_t offset, uint64_t length, bool surely = true);
  void resized(uint64_t size);
  // The image was closed without an error: what it has now is what it was closed with.
  void closed();

  // Does one thing, by chance, to the bitmaps.
  io::Task<Result<void>> change(block::BitmapStore& store, Random& random);
  // The image has exactly the bitmaps of now, and each of them everything that it must have.
  // `exactly`: and nothing else.
  io::Task<Result<void>> compare(block::BitmapStore& store, bool exactly) const;
  // After a cut or an error: they are what they may be, and that is from now on what they are.
  io::Task<Result<void>> survive(block::BitmapStore& store);

 private:
  struct Entry {
    uint64_t granularity = 0;
    bool enabled = true;
    bool inconsistent = false;
    std::vector<bool> must = {}, may = {};  // have set
  };
  using Set = std::map<std::string, Entry>;

  static void mark(Entry& entry, uint64_t offset, uint64_t length, bool surely);
  uint64_t bits_of(uint64_t granularity) const { return (size_ + granularity - 1) / granularity; }
  io::Task<Result<void>> add(block::BitmapStore& store, Random& random);
  io::Task<Result<void>> merge(block::BitmapStore& store, Random& random, std::string name);
  static Result<void> agrees(const std::string& name, const Entry& entry,
                             const block::BitmapInfo& info, const block::DirtyBitmap& bits,
                             bool exactly);

  uint64_t size_;
  Set stored_, current_;
  std::mutex mutex_;
};

}  // namespace platter::workload
