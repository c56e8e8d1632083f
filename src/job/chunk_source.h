// ChunkSource: what there is to copy, cut into chunks and handed out in guest order to workers on
// any reactor.
//
// It asks for block status ahead of the workers, in runs as long as the image gives them, so that
// what need not be touched costs one step however long it is. Zero runs that are shorter than
// the target's granularity, and short gaps between data, are handed out as data: reading a few zero
// bytes costs less than a step of its own, and a cluster that is written whole needs no
// copy-on-write.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "block/backend.h"
#include "io/sync.h"
#include "io/task.h"
#include "job/copy_engine.h"
#include "platter/error.h"

namespace platter::job {

struct Chunk {
  uint64_t offset;    // in the target
  uint64_t length;    // bytes; of data at most the buffer size
  bool zero;          // to be zeroed; else to be read and written
  uint64_t sequence;  // 0, 1, 2 ... in guest order
};

class ChunkSource {
 public:
  struct Settings {
    // The end of a chunk of data is a multiple of this; power of two.
    uint64_t buffer_size;
    // Runs of zeroes are handed out in multiples of this (but for the ends of sources); power of
    // two.
    uint64_t granularity;
    // Runs of any kind are handed out in multiples of the granularity, but for the end of all: what
    // is data in part is data whole, and may reach over the end of a source.
    bool whole_granules = false;
  };
  // `options` outlives it.
  ChunkSource(const CopyOptions& options, Settings settings);

  // The next chunk; nullopt: there is none left, or stop() was called. Any reactor.
  io::Task<Result<std::optional<Chunk>>> next();
  // Reads what belongs at `offset` in the target. Any reactor.
  io::Task<Result<void>> read(uint64_t offset, io::BufferList buffers) const;
  // Where the source has what belongs at `offset`: which one, and where in it.
  std::pair<block::Backend*, uint64_t> place(uint64_t offset) const;
  // next() hands out nothing more. Any thread.
  void stop() { stopped_.store(true, std::memory_order_relaxed); }

  uint64_t size() const { return size_; }
  // Bytes of data that are to be copied, as block status knows it now. Before the first next().
  io::Task<Result<uint64_t>> count_data();
  uint64_t skipped_bytes() const { return skipped_; }

 private:
  enum class Kind { kData, kZero, kSkip };
  struct Run {
    Kind kind;
    uint64_t end;  // in the target
  };
  struct Extent {
    CopySource source;
    uint64_t begin;  // in the target
    uint64_t end;
  };

  const Extent& extent_at(uint64_t offset) const;
  io::Task<Result<Run>> run_at(uint64_t offset);
  io::Task<Result<void>> extend_data(uint64_t limit);
  Run shape(Run run, uint64_t offset, uint64_t limit) const;
  Kind kind_of(const CopySource& source, const block::BlockStatus& status, uint64_t offset) const;

  const CopyOptions& options_;
  const Settings settings_;
  std::vector<Extent> extents_;
  uint64_t size_ = 0;

  io::AsyncMutex mutex_;  // what follows
  uint64_t position_ = 0;
  Run run_{Kind::kSkip, 0};   // the one that position_ is in, or ends at position_
  std::optional<Run> ahead_;  // the run at run_.end, where it is known
  uint64_t sequence_ = 0;
  uint64_t skipped_ = 0;
  std::atomic<bool> stopped_ = false;
};

}  // namespace platter::job
