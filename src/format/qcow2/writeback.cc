#include "format/qcow2/writeback.h"

#include <algorithm>

#include "base/try.h"

namespace platter::format::qcow2 {
namespace {

// Staged writes in flight at a time, and the most that one of them carries.
constexpr size_t kParallelWrites = 16;
constexpr size_t kMaxWriteBytes = 1 << 20;

}  // namespace

struct WriteBack::Round {
  uint32_t undurable = 0;
  uint64_t changes = 0;
  std::vector<uint8_t> staging;
  std::vector<TableCache::Staged> refcount_slices, l2_slices;
  std::vector<StagedWrite> refcount_blocks, refcount_table, l2, l1;
  std::vector<StagedWrite> mappings;  // both of these
};

io::Task<Result<void>> WriteBack::flush() {
  const uint64_t begun = rounds_begun_.load(std::memory_order_acquire);
  if (is_settled()) co_return co_await image_.flush();
  auto turn = co_await rounds_.lock();
  // A round that began after this call covers it.
  if (last_good_round_.load(std::memory_order_acquire) > begun) co_return Result<void>{};
  co_return co_await run_round(false);
}

io::Task<Result<void>> WriteBack::flush_all() {
  auto turn = co_await rounds_.lock();
  co_return co_await run_round(true);
}

io::Task<Result<void>> WriteBack::run_round(bool all) {
  if (image_.corrupt) co_return std::unexpected(image_.corrupt_error());
  const uint64_t number = rounds_begun_.fetch_add(1, std::memory_order_acq_rel) + 1;
  Round round;
  {
    auto lock = co_await image_.allocation.lock();
    stage(round, all);
    auto clear = co_await check_overlaps(round);
    if (!clear) {
      settle(round, false);
      co_return clear;
    }
  }
  auto written = co_await write_steps(round);
  {
    auto lock = co_await image_.allocation.lock();
    settle(round, written.has_value());
  }
  if (written) {
    settled_.store(round.changes, std::memory_order_release);
    last_good_round_.store(number, std::memory_order_release);
  }
  co_return written;
}

void WriteBack::stage(Round& round, bool all) {
  round.undurable = std::exchange(image_.undurable, 0);
  round.changes = image_.changes.load(std::memory_order_acquire);
  frees_.round_begins();

  const auto place = [](const std::vector<TableCache::Staged>& slices, auto host_offset,
                        size_t bytes, std::vector<StagedWrite>& writes) {
    writes.reserve(slices.size());
    for (const auto& slice : slices)
      writes.push_back({host_offset(slice.key), slice.position, bytes});
  };
  if (all || !lazy_ || refcounts_.cache().under_pressure()) {
    round.refcount_slices = refcounts_.cache().take_dirty(round.staging);
    place(
        round.refcount_slices, [&](uint64_t key) { return refcounts_.slice_host_offset(key); },
        refcounts_.cache().slice_bytes(), round.refcount_blocks);
  }
  refcounts_.take_dirty_table(round.staging, round.refcount_table);
  round.l2_slices = mapping_.cache().take_dirty(round.staging);
  place(
      round.l2_slices, [&](uint64_t key) { return mapping_.slice_host_offset(key); },
      mapping_.cache().slice_bytes(), round.l2);
  mapping_.take_dirty_l1(round.staging, round.l1);
  round.mappings = round.l2;
  round.mappings.insert(round.mappings.end(), round.l1.begin(), round.l1.end());
}

// An image may say of two tables that they are at the same place.
io::Task<Result<void>> WriteBack::check_overlaps(const Round& round) {
  const auto check = [this](const std::vector<StagedWrite>& writes,
                            Structures own) -> io::Task<Result<void>> {
    for (const StagedWrite& write : writes)
      PLATTER_CO_TRY(co_await image_.check_overlap(write.host_offset, write.length, own));
    co_return Result<void>{};
  };
  PLATTER_CO_TRY(co_await check(round.refcount_blocks, kRefcountBlock));
  PLATTER_CO_TRY(co_await check(round.refcount_table, kRefcountTable));
  PLATTER_CO_TRY(co_await check(round.l1, kActiveL1));
  PLATTER_CO_TRY(co_await check(round.l2, kActiveL2 | kInactiveL2));
  co_return Result<void>{};
}

io::Task<Result<void>> WriteBack::write_steps(Round& round) {
  for (const WriteRule& rule : kWriteOrder) {
    const auto& writes = rule.step == WriteStep::kRefcountBlocks  ? round.refcount_blocks
                         : rule.step == WriteStep::kRefcountTable ? round.refcount_table
                                                                  : round.mappings;
    if (writes.empty()) continue;
    if ((rule.needs & round.undurable) != 0) {
      PLATTER_CO_TRY(co_await image_.flush());
      round.undurable = 0;
    }
    PLATTER_CO_TRY(co_await write_step(round, rule.step));
    round.undurable |= rule.leaves;
  }
  co_return co_await image_.flush();
}

// The points that the writes of a step pass.
std::vector<block::DebugEvent> WriteBack::events_of(const Round& round, WriteStep step) const {
  using block::DebugEvent;
  if (!image_.file->has_debug_points()) return {};
  if (step == WriteStep::kRefcountBlocks)
    return {DebugEvent::kRefblockUpdate, DebugEvent::kRefblockUpdatePart};
  if (step == WriteStep::kRefcountTable) return {DebugEvent::kReftableUpdate};
  std::vector<DebugEvent> events;
  if (!round.l2_slices.empty()) events.push_back(DebugEvent::kL2Update);
  if (!round.l1.empty()) events.push_back(DebugEvent::kL1Update);
  return events;
}

// Sorted by offset; neighbours in the file become one write.
io::Task<Result<void>> WriteBack::write_step(Round& round, WriteStep step) {
  auto& writes = step == WriteStep::kRefcountBlocks  ? round.refcount_blocks
                 : step == WriteStep::kRefcountTable ? round.refcount_table
                                                     : round.mappings;
  std::vector<StagedWrite> sorted = writes;
  std::sort(sorted.begin(), sorted.end(), [](const StagedWrite& a, const StagedWrite& b) {
    return a.host_offset < b.host_offset;
  });
  std::vector<iovec> pieces;
  pieces.reserve(sorted.size());
  for (const StagedWrite& write : sorted)
    pieces.push_back({round.staging.data() + write.position, write.length});

  for (const auto event : events_of(round, step)) co_await image_.file->pass(event);
  size_t next = 0;
  while (next < sorted.size()) {
    std::vector<io::Task<Result<void>>> batch;
    while (next < sorted.size() && batch.size() < kParallelWrites) {
      const size_t first = next;
      size_t bytes = 0;
      uint64_t end = sorted[first].host_offset;
      while (next < sorted.size() && sorted[next].host_offset == end && next - first < 256 &&
             bytes + sorted[next].length <= std::max(kMaxWriteBytes, sorted[next].length)) {
        bytes += sorted[next].length;
        end += sorted[next].length;
        ++next;
      }
      batch.push_back(image_.file->write(
          sorted[first].host_offset,
          io::BufferList(std::span<const iovec>(pieces).subspan(first, next - first))));
    }
    for (auto& result : co_await io::when_all(std::move(batch))) PLATTER_CO_TRY(std::move(result));
  }
  co_return Result<void>{};
}

void WriteBack::settle(Round& round, bool durable) {
  refcounts_.cache().end_write(round.refcount_slices, durable);
  mapping_.cache().end_write(round.l2_slices, durable);
  refcounts_.end_table_write(round.refcount_table, round.staging, durable);
  mapping_.end_l1_write(round.l1, round.staging, durable);
  frees_.round_ends(durable);
  if (durable) return;
  image_.undurable |= kUndurableData | kUndurableRefcountBlocks | kUndurableRefcountTable |
                      kUndurableNewTables | kUndurableMappings;
}

}  // namespace platter::format::qcow2
