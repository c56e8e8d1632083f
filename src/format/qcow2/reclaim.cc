// The background task that brings freed clusters back to the allocator (free_queue.h), flush and
// close.

#include "base/try.h"
#include "format/qcow2/driver.h"

namespace platter::format::qcow2 {

io::Task<Result<void>> Qcow2::flush() {
  if (!image_.writable) co_return Result<void>{};
  PLATTER_CO_TRY(co_await writeback_.flush());
  if (frees_.has_unlinked()) start_reclaim();
  co_return Result<void>{};
}

void Qcow2::start_reclaim() {
  if (reclaiming_.exchange(true)) return;
  background_.spawn(*io::Reactor::current(), reclaim());
}

io::Task<void> Qcow2::reclaim() {
  auto whole = co_await reclaim_turn_.lock();
  for (;;) {
    if (frees_.has_many_queued()) {
      auto turn = co_await maintenance_.lock();
      // On failure they stay queued; the next flush says why.
      auto flushed = co_await writeback_.flush();
      if (!flushed) image_.log->warning("qcow2: Freed clusters wait: " + flushed.error().message());
    }
    std::vector<FreedRange> ranges = frees_.take_unlinked();
    if (ranges.empty()) break;
    co_await image_.node->requests_in_flight_end();
    auto turn = co_await maintenance_.lock();
    auto reclaimed = co_await reclaim_ranges(std::move(ranges));
    if (!reclaimed) image_.log->warning("qcow2: Clusters leaked: " + reclaimed.error().message());
  }
  reclaiming_.store(false);
}

// Nobody uses the clusters any more. The file is told first: a discard that came late would erase
// what the next owner writes.
io::Task<Result<void>> Qcow2::reclaim_ranges(std::vector<FreedRange> ranges) {
  const unsigned bits = image_.geometry.cluster_bits;
  for (const FreedRange& range : ranges) {
    const bool pass = range.reason == FreeReason::kDiscard ? options_.pass_discard_request
                      : range.reason == FreeReason::kOther ? options_.pass_discard_other
                                                           : true;
    if (!pass) continue;
    uint64_t cluster = range.offset >> bits;
    const uint64_t end = cluster + range.clusters;
    while (cluster < end) {
      // Only what has no other reference.
      uint64_t last = cluster;
      {
        auto lock = co_await image_.allocation.lock();
        while (last < end) {
          PLATTER_CO_ASSIGN(const uint64_t count, co_await refcounts_.get(last));
          if (count != 1) break;
          ++last;
        }
      }
      if (last > cluster) {
        // Advice: what the file cannot discard stays allocated in it.
        (void)co_await image_.file->discard(cluster << bits, (last - cluster) << bits);
      }
      cluster = last + 1;
    }
  }
  Result<void> result{};
  for (const FreedRange& range : ranges) {
    PLATTER_CO_TRY(co_await write_back_if_pressed());
    auto lock = co_await image_.allocation.lock();
    auto released = co_await refcounts_.release(range.offset, range.clusters);
    if (!released && result) result = std::move(released);
  }
  co_return result;
}

io::Task<Result<void>> Qcow2::write_back_if_pressed() {
  if (!writeback_.under_pressure()) co_return Result<void>{};
  co_return co_await writeback_.flush();
}

io::Task<Result<void>> Qcow2::settle() {
  for (;;) {
    PLATTER_CO_TRY(co_await writeback_.flush_all());
    std::vector<FreedRange> ranges = frees_.take_unlinked();
    if (ranges.empty()) co_return Result<void>{};
    PLATTER_CO_TRY(co_await reclaim_ranges(std::move(ranges)));
  }
}

// A compressed cluster is said to lie in whole sectors, and readers may hold the file to that.
io::Task<Result<void>> Qcow2::end_file_with_sector() {
  const uint64_t end = image_.file->size();
  if (!compressed_written_ || end % kSectorBytes == 0) co_return Result<void>{};
  co_return co_await image_.file->resize(base::align_up(end, kSectorBytes),
                                         block::Preallocation::kOff, false);
}

io::Task<Result<void>> Qcow2::close() {
  co_await stop_cleaner();
  co_await background_.close();
  if (!image_.writable || image_.corrupt) {
    if (image_.writable && (!writeback_.is_settled() || bitmaps_.needs_storing()))
      co_return std::unexpected(image_.corrupt_error());
    // Of one that was writable before.
    if (state_ != nullptr) state_->end();
    co_return Result<void>{};
  }
  PLATTER_CO_TRY(co_await settle());
  Result<void> stored = co_await store_bitmaps();
  PLATTER_CO_TRY(co_await end_file_with_sector());
  if (image_.header.has(kDirty)) {
    PLATTER_CO_TRY(co_await image_.change_incompatible(0, kDirty));
    PLATTER_CO_TRY(co_await image_.file->flush());
  }
  if (state_ != nullptr) state_->end();
  co_return stored;
}

}  // namespace platter::format::qcow2
