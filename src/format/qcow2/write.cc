// Writing: in place where the cluster is ours alone, else by allocation and copy on write.

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "base/try.h"
#include "format/qcow2/driver.h"
#include "format/qcow2/plan.h"

namespace platter::format::qcow2 {

using block::DebugEvent;

namespace {

// The most that one allocation takes.
constexpr uint64_t kMaxAllocationBytes = uint64_t{16} << 20;
// Zeroes around a write: up to here they are written with it, beyond that the file is told to zero.
constexpr uint64_t kMaxWrittenZeroes = uint64_t{128} << 10;
// Two old parts with at most this between them are read at once.
constexpr uint64_t kSmallGap = uint64_t{32} << 10;

bool in_place(const Run& run) { return run.kind == ClusterKind::kNormal && run.copied; }

// Where in its cluster what an entry has allocated begins, and ends.
uint64_t first_kept(const ExtendedEntry& entry, const Geometry& geometry) {
  if (entry.entry & kCompressedFlag) return 0;
  const unsigned first = static_cast<unsigned>(std::countr_zero(entry.allocated()));
  return uint64_t{std::min(first, kSubclusters)} << geometry.subcluster_bits();
}
uint64_t end_of_kept(const ExtendedEntry& entry, const Geometry& geometry) {
  if (entry.entry & kCompressedFlag) return geometry.cluster_size();
  return uint64_t{static_cast<unsigned>(std::bit_width(entry.allocated()))}
         << geometry.subcluster_bits();
}

}  // namespace

Result<void> Qcow2::check_writable() const {
  if (image_.corrupt) return std::unexpected(image_.corrupt_error());
  if (!image_.writable) return fail(EPERM, "qcow2: The image is open read-only");
  return {};
}

io::Task<Result<void>> Qcow2::write(uint64_t offset, io::BufferList buffers,
                                    block::WriteFlags flags) {
  if (flags.has(block::WriteFlag::kFua)) return write_durably(offset, buffers, flags);
  if (flags.has(block::WriteFlag::kCompressed)) return write_compressed(offset, buffers);
  if (write_prepared_.load(std::memory_order_acquire) &&
      !image_.corrupt.load(std::memory_order_relaxed)) [[likely]] {
    auto run = mapping_.try_lookup(offset, buffers.size());
    if (run && run->length == buffers.size() && in_place(*run) &&
        may_hold_data(run->host_offset, run->length) && !image_.file->has_debug_points())
        [[likely]] {
      return write_data(run->host_offset, offset, buffers);
    }
  }
  return write_slow(offset, buffers);
}

// Where the mapping is durable already, the data alone has to become so.
io::Task<Result<void>> Qcow2::write_durably(uint64_t offset, io::BufferList buffers,
                                            block::WriteFlags flags) {
  if (!flags.has(block::WriteFlag::kCompressed) && encryption_ == nullptr) {
    PLATTER_CO_TRY(co_await begin_guest_write());
    PLATTER_CO_ASSIGN(const Run run, co_await mapping_.lookup(offset, buffers.size()));
    // Asked after the lookup: what the lookup has seen had been announced before.
    if (run.length == buffers.size() && in_place(run) && writeback_.is_settled()) {
      PLATTER_CO_TRY(check_writable());
      PLATTER_CO_TRY(co_await check_data_place(run.host_offset, run.length));
      co_await image_.file->pass(DebugEvent::kWriteAio);
      co_return co_await image_.data->write(run.host_offset, buffers, block::WriteFlag::kFua);
    }
  }
  PLATTER_CO_TRY(co_await write(offset, buffers, flags.without(block::WriteFlag::kFua)));
  co_return co_await flush();
}

io::Task<Result<void>> Qcow2::write_data(uint64_t host_offset, uint64_t guest_offset,
                                         io::BufferList buffers) {
  if (encryption_ != nullptr) [[unlikely]]
    return encryption_->write(host_offset, guest_offset, buffers);
  return image_.data->write(host_offset, buffers);
}

io::Task<Result<void>> Qcow2::write_slow(uint64_t offset, io::BufferList buffers) {
  PLATTER_CO_TRY(co_await begin_guest_write());
  size_t done = 0;
  while (done < buffers.size()) {
    const uint64_t at = offset + done;
    const size_t left = buffers.size() - done;
    PLATTER_CO_ASSIGN(const Run run, co_await mapping_.lookup(at, left));
    if (in_place(run)) {
      PLATTER_CO_TRY(check_writable());
      PLATTER_CO_TRY(co_await check_data_place(run.host_offset, run.length));
      co_await image_.file->pass(DebugEvent::kWriteAio);
      PLATTER_CO_TRY(co_await write_data(run.host_offset, at, buffers.sub(done, run.length)));
      done += run.length;
    } else {
      PLATTER_CO_ASSIGN(const uint64_t written,
                        co_await write_allocating(at, buffers.sub(done, left)));
      done += written;
    }
  }
  co_return Result<void>{};
}

// Guest data goes where an entry of a table says, which may be wrong.
io::Task<Result<void>> Qcow2::check_data_place(uint64_t host_offset, uint64_t length) {
  if (may_hold_data(host_offset, length)) co_return Result<void>{};
  auto lock = co_await image_.allocation.lock();
  co_return co_await image_.check_overlap(host_offset, length, 0);
}

io::Task<Result<void>> Qcow2::begin_guest_write() {
  PLATTER_CO_TRY(check_writable());
  if (write_prepared_.load(std::memory_order_acquire)) co_return Result<void>{};
  auto lock = co_await image_.allocation.lock();
  co_return co_await prepare_write();
}

// Returns how many bytes it wrote: 0 if somebody else has just allocated the cluster.
io::Task<Result<uint64_t>> Qcow2::write_allocating(uint64_t offset, io::BufferList buffers) {
  const unsigned unit_bits = image_.geometry.subcluster_bits();
  const uint64_t first = offset >> unit_bits;
  const uint64_t end = ((offset + buffers.size() - 1) >> unit_bits) + 1;
  Plan plan;
  for (;;) {
    PLATTER_CO_TRY(co_await relieve_pressure());
    InFlightAllocations::Waiting waiting;
    {
      auto lock = co_await image_.allocation.lock();
      PLATTER_CO_TRY(check_writable());
      auto* other = in_flight_.find(first, end);
      if (other == nullptr || other->first > first) {
        PLATTER_CO_TRY(co_await prepare_allocation());
        uint64_t length = buffers.size();
        if (other != nullptr) length = std::min(length, (other->first << unit_bits) - offset);
        PLATTER_CO_ASSIGN(const bool planned, co_await plan_allocation(plan, offset, length));
        if (!planned) co_return 0;
        in_flight_.add(plan.allocation);
        co_await lock.pass();  // the others plan before this one copies
        break;
      }
      InFlightAllocations::wait_for(*other, waiting);
    }
    co_await waiting.ended.wait();
  }

  auto result = co_await write_planned(plan, buffers.sub(0, plan.length));
  auto lock = co_await image_.allocation.lock();
  if (result && image_.corrupt) result = std::unexpected(image_.corrupt_error());
  if (result) result = co_await link(plan);
  if (!result) co_await abandon(plan, plan.linked);
  in_flight_.remove(plan.allocation);
  co_await lock.pass();
  if (!result) co_return std::unexpected(std::move(result).error());
  co_return plan.length;
}

// Decides where the guest bytes go, or the first of them, and allocates host clusters if they need
// any. False: the first bytes may be written in place.
io::Task<Result<bool>> Qcow2::plan_allocation(Plan& plan, uint64_t offset, uint64_t length) {
  const Geometry& geometry = image_.geometry;
  const unsigned bits = geometry.cluster_bits;
  plan.start = geometry.align_down(offset);
  plan.offset = offset;
  const uint64_t in_table = geometry.l2_entries() - geometry.l2_index(offset);
  const uint64_t limit = std::min({geometry.clusters_for(offset + length - plan.start), in_table,
                                   std::max<uint64_t>(kMaxAllocationBytes >> bits, 1)});
  length = std::min(length, plan.start + (limit << bits) - offset);
  PLATTER_CO_ASSIGN(const Run first, co_await mapping_.lookup(offset, length));
  if (in_place(first)) co_return false;
  PLATTER_CO_TRY(co_await mapping_.ensure_table(offset));
  plan.reuse = first.copied && has_host(first.kind);
  if (plan.reuse) {
    plan.length = first.length;
    const uint64_t clusters = geometry.clusters_for(offset + plan.length - plan.start);
    plan.run = {.offset = first.host_offset - (offset - plan.start), .clusters = clusters};
    if (!geometry.external_data)
      PLATTER_CO_TRY(co_await image_.check_overlap(plan.run.offset, clusters << bits, 0));
  } else {
    PLATTER_CO_ASSIGN(const uint64_t wanted, co_await count_allocatable(plan.start, limit));
    PLATTER_CO_ASSIGN(plan.run, co_await allocate_data(plan.start, wanted));
    plan.length = std::min(length, plan.start + (plan.run.clusters << bits) - offset);
  }
  auto surrounded = co_await plan_surroundings(plan, first);
  if (!surrounded) {
    co_await abandon(plan, 0);
    co_return std::unexpected(std::move(surrounded).error());
  }
  const unsigned unit_bits = geometry.subcluster_bits();
  const uint64_t run_end = plan.start + (plan.run.clusters << bits);
  plan.allocation.first = (plan.reuse ? plan.begin : plan.start) >> unit_bits;
  plan.allocation.end = (plan.reuse ? plan.end : run_end) >> unit_bits;
  co_return true;
}

// Consecutive host clusters for guest data: as many as there are, at most `clusters`.
io::Task<Result<HostRun>> Qcow2::allocate_data(uint64_t guest_offset, uint64_t clusters) {
  if (!image_.geometry.external_data) return refcounts_.allocate(clusters);
  // Each has its place already.
  return io::Task<Result<HostRun>>::ready(HostRun{
      .offset = guest_offset, .clusters = clusters, .fresh = guest_offset >= image_.data->size()});
}

// What the clusters at both ends must have besides the guest's bytes, and whether that is zeroes.
io::Task<Result<void>> Qcow2::plan_surroundings(Plan& plan, Run first) {
  const Geometry& geometry = image_.geometry;
  const uint64_t data_end = plan.offset + plan.length;
  plan.begin = base::align_down(plan.offset, geometry.subcluster_size());
  plan.end = base::align_up(data_end, geometry.subcluster_size());
  if (geometry.extended_l2 && !plan.reuse) {
    // A cluster that is replaced takes along all that it has.
    const uint64_t last = geometry.align_down(data_end - 1);
    PLATTER_CO_ASSIGN(const ExtendedEntry head, co_await mapping_.entry_at(plan.start));
    PLATTER_CO_ASSIGN(const ExtendedEntry tail, co_await mapping_.entry_at(last));
    plan.begin = std::min(plan.begin, plan.start + first_kept(head, geometry));
    plan.end = std::max(plan.end, last + end_of_kept(tail, geometry));
  }
  plan.head_zero = true;
  plan.tail_zero = true;
  plan.over_backing = !geometry.extended_l2 && shows_backing(first.kind);
  if (plan.begin < plan.offset) {
    PLATTER_CO_ASSIGN(plan.head_zero, co_await range_reads_zero(plan.begin, plan.offset, first));
  }
  if (data_end < plan.end && (data_end < size() || is_vm_state(plan.offset))) {
    PLATTER_CO_ASSIGN(const Run behind, co_await mapping_.lookup(data_end, plan.end - data_end));
    PLATTER_CO_ASSIGN(plan.tail_zero, co_await range_reads_zero(data_end, plan.end, behind));
    plan.over_backing = plan.over_backing && shows_backing(behind.kind);
  }
  co_return Result<void>{};
}

// Whether the mapping says so. `near` is a run in the same cluster: without subclusters it stands
// for all of it.
io::Task<Result<bool>> Qcow2::range_reads_zero(uint64_t offset, uint64_t end, Run near) {
  if (!image_.geometry.extended_l2) co_return run_reads_zero(near.kind, offset);
  while (offset < end) {
    PLATTER_CO_ASSIGN(const Run run, co_await mapping_.lookup(offset, end - offset));
    if (!run_reads_zero(run.kind, offset)) co_return false;
    offset += run.length;
  }
  co_return true;
}

// Whether the backing file knows, unread, that it has nothing but zeroes around the written bytes.
io::Task<bool> Qcow2::backing_is_hole(const Plan& plan) {
  if (!plan.over_backing || (plan.head_zero && plan.tail_zero) || plan.length > kSmallGap)
    co_return false;
  const uint64_t length = plan.end - plan.begin;
  auto status = co_await image_.node->backing()->node().status_above(
      nullptr, plan.begin, length, block::StatusDetail::kHoles, nullptr);
  // Where it cannot say, it is read.
  co_return status && status->zero && status->length == length;
}

// How many of the clusters from `offset` on, at most `max_clusters`, have no host cluster that may
// be written in place. At least the first.
io::Task<Result<uint64_t>> Qcow2::count_allocatable(uint64_t offset, uint64_t max_clusters) {
  const Geometry& geometry = image_.geometry;
  uint64_t count = 0;
  while (count < max_clusters) {
    const uint64_t at = offset + (count << geometry.cluster_bits);
    PLATTER_CO_ASSIGN(const Run run, co_await mapping_.lookup(at, (max_clusters - count)
                                                                      << geometry.cluster_bits));
    if (run.copied && has_host(run.kind)) break;
    count += geometry.clusters_for(run.length);
  }
  co_return std::clamp<uint64_t>(count, 1, max_clusters);
}

// Guest data and, in the same write where it can be, what surrounds it in its clusters. No lock is
// held.
io::Task<Result<void>> Qcow2::write_planned(Plan& plan, io::BufferList buffers) {
  const uint64_t data_end = plan.offset + plan.length;
  const uint64_t head = plan.offset - plan.begin;
  const uint64_t tail = plan.end - data_end;
  // Zeroes of the file are zeroes to the guest where nothing is encrypted.
  const bool plain = encryption_ == nullptr;
  if (plain && plan.run.fresh && co_await backing_is_hole(plan))
    plan.head_zero = plan.tail_zero = true;
  const bool keep_head = head == 0 || (plain && plan.head_zero && plan.run.fresh);
  const bool keep_tail = tail == 0 || (plain && plan.tail_zero && plan.run.fresh);
  block::Child& file = *image_.data;
  if (keep_head && keep_tail) {
    co_await image_.file->pass(DebugEvent::kWriteAio);
    co_return co_await write_data(plan.host_of(plan.offset), plan.offset, buffers);
  }

  const bool zero_head = plain && !keep_head && plan.head_zero && head > kMaxWrittenZeroes;
  const bool zero_tail = plain && !keep_tail && plan.tail_zero && tail > kMaxWrittenZeroes;
  bool write_head = !keep_head && !zero_head;
  bool write_tail = !keep_tail && !zero_tail;
  const bool read_head = write_head && !plan.head_zero;
  const bool read_tail = write_tail && !plan.tail_zero;
  const bool read_all = read_head && read_tail && plan.length <= kSmallGap;
  const uint64_t gap = read_all ? plan.length : 0;

  io::AlignedBuffer old((write_head ? head : 0) + gap + (write_tail ? tail : 0));
  io::BufferList old_head = write_head ? old.view(0, head) : io::BufferList();
  io::BufferList old_tail = write_tail ? old.view(old.size() - tail, tail) : io::BufferList();
  if (read_head || read_tail) co_await image_.file->pass(DebugEvent::kCowRead);
  if (read_all) {
    PLATTER_CO_TRY(co_await read_slow(plan.begin, old.view()));
  } else {
    std::vector<io::Task<Result<void>>> reads;
    if (read_head)
      reads.push_back(read_slow(plan.begin, old_head));
    else
      old_head.fill_zero();
    if (read_tail)
      reads.push_back(read_slow(data_end, old_tail));
    else
      old_tail.fill_zero();
    for (auto& result : co_await io::when_all(std::move(reads))) PLATTER_CO_TRY(std::move(result));
  }
  if (plain && plan.run.fresh) {
    // Much of what backing files hold is zeroes that no mapping shows. This file has them already.
    const auto leave_out_zeroes = [](bool& is_written, io::BufferList& bytes) {
      if (!is_written || !bytes.is_zero()) return;
      is_written = false;
      bytes = io::BufferList();
    };
    leave_out_zeroes(write_head, old_head);
    leave_out_zeroes(write_tail, old_tail);
  }

  if (zero_head || zero_tail) co_await image_.file->pass(DebugEvent::kClusterAllocSpace);
  if (write_head || write_tail) co_await image_.file->pass(DebugEvent::kCowWrite);
  co_await image_.file->pass(DebugEvent::kWriteAio);
  std::vector<iovec> pieces;
  pieces.reserve(buffers.piece_count() + 2);
  const auto add = [&pieces](std::span<uint8_t> bytes) {
    pieces.push_back({bytes.data(), bytes.size()});
  };
  old_head.for_each(add);
  buffers.for_each(add);
  old_tail.for_each(add);
  std::vector<io::Task<Result<void>>> writes;
  writes.push_back(write_data(plan.host_of(write_head ? plan.begin : plan.offset),
                              write_head ? plan.begin : plan.offset,
                              io::BufferList(std::span<const iovec>(pieces))));
  if (zero_head) writes.push_back(file.zero(plan.host_of(plan.begin), head));
  if (zero_tail) writes.push_back(file.zero(plan.host_of(data_end), tail));
  for (auto& result : co_await io::when_all(std::move(writes))) PLATTER_CO_TRY(std::move(result));
  co_return Result<void>{};
}

// Under the allocation mutex: from here on readers see the new clusters.
io::Task<Result<void>> Qcow2::link(Plan& plan) {
  const unsigned bits = image_.geometry.cluster_bits;
  while (plan.linked < plan.run.clusters) {
    const uint64_t guest = plan.start + (plan.linked << bits);
    PLATTER_CO_ASSIGN(auto pin, co_await mapping_.writable_slice(guest));
    const size_t first = mapping_.index_in_slice(guest);
    const size_t count =
        std::min<uint64_t>(mapping_.slice_entries() - first, plan.run.clusters - plan.linked);
    // Before anybody sees it, so that nobody takes it for durable; no round begins meanwhile.
    image_.changed(kUndurableData);
    pin.change([&](SliceWords words) {
      for (size_t i = first; i < first + count; ++i, ++plan.linked) {
        const uint64_t old = link_entry(plan, words, i);
        if (!plan.reuse) queue_free(old, FreeReason::kOther);
      }
    });
    pin.mark_dirty();
  }
  co_return Result<void>{};
}

// Links the next cluster of the plan as the entry at `index`; returns what its first word was.
uint64_t Qcow2::link_entry(const Plan& plan, SliceWords words, size_t index) const {
  const Geometry& geometry = image_.geometry;
  const uint64_t done = plan.linked << geometry.cluster_bits;
  const uint64_t next = (plan.run.offset + done) | kCopiedFlag;
  if (!geometry.extended_l2) {
    const uint64_t old = words.get(index);
    words.set(index, next);
    return old;
  }
  const uint64_t guest = plan.start + done;
  const uint64_t guest_end = guest + geometry.cluster_size();
  uint64_t filled = 0;
  if (plan.begin < guest_end && guest < plan.end) {
    const uint64_t from = std::max(plan.begin, guest) - guest;
    const uint64_t to = std::min(plan.end, guest_end) - guest;
    filled = subcluster_mask(static_cast<unsigned>(from >> geometry.subcluster_bits()),
                             static_cast<unsigned>(to >> geometry.subcluster_bits()));
  }
  const ExtendedEntry old = {words.get(2 * index), words.get(2 * index + 1)};
  const uint64_t zeroes = old.zeroes() & ~filled;
  words.set(2 * index, next);
  words.set(2 * index + 1, zeroes << kSubclusters | old.allocated() | filled);
  return old.entry;
}

// Under the allocation mutex: gives back what was allocated and will not be linked. If that fails
// they stay counted.
io::Task<void> Qcow2::abandon(Plan& plan, uint64_t linked_clusters) {
  if (plan.reuse || linked_clusters == plan.run.clusters || image_.geometry.external_data)
    co_return;
  const unsigned bits = image_.geometry.cluster_bits;
  auto released = co_await refcounts_.release(plan.run.offset + (linked_clusters << bits),
                                              plan.run.clusters - linked_clusters);
  if (!released) image_.log->warning("qcow2: Clusters leaked: " + released.error().message());
}

// The host clusters of an L2 entry that was replaced.
void Qcow2::queue_free(uint64_t entry, FreeReason reason) {
  const Geometry& geometry = image_.geometry;
  if (geometry.external_data) return;  // clusters of a data file are not counted
  if ((entry & kCompressedFlag) != 0) {
    const CompressedSpan span = decode_compressed(entry, geometry.cluster_bits);
    const uint64_t first = geometry.align_down(span.host_offset);
    refcounts_.leave_tail();
    frees_.add(first, geometry.clusters_for(span.host_offset + span.length - first), reason);
    std::lock_guard lock(last_mutex_);
    last_.reset();
  } else if ((entry & kOffsetMask) != 0) {
    frees_.add(entry & kOffsetMask, 1, reason);
  }
}

io::Task<Result<void>> Qcow2::relieve_pressure() {
  if (frees_.has_many_queued()) start_reclaim();
  co_return co_await write_back_if_pressed();
}

// Data changes: bitmaps are out of step with the file from here on, and so is what other autoclear
// features describe.
io::Task<Result<void>> Qcow2::prepare_write() {
  if (write_prepared_.load(std::memory_order_relaxed)) co_return Result<void>{};
  PLATTER_CO_TRY(co_await bitmaps_.prepare_write());
  const Error* unreadable = bitmaps_.unreadable();
  const uint64_t bitmaps = unreadable == nullptr ? uint64_t{kBitmapsValid} : 0;
  const uint64_t kept = image_.header.autoclear & (bitmaps | raw_data_promise());
  if (image_.header.autoclear != kept) {
    if (unreadable != nullptr) {
      image_.log->warning(fmt::format("{}: qcow2: The bitmaps will not be in step any more: {}",
                                      image_.node->filename(), unreadable->message()));
    }
    PLATTER_CO_TRY(co_await image_.write_header_u64(field::kAutoclear, kept));
    PLATTER_CO_TRY(co_await image_.file->flush());
    image_.header.autoclear = kept;
  }
  write_prepared_.store(true, std::memory_order_release);
  co_return Result<void>{};
}

io::Task<Result<void>> Qcow2::prepare_allocation() {
  PLATTER_CO_TRY(co_await prepare_write());
  co_return co_await prepare_counts();
}

// With lazy refcounts the dirty bit is durable before any count may lag behind.
io::Task<Result<void>> Qcow2::prepare_counts() {
  if (allocation_prepared_) co_return Result<void>{};
  if (lazy_refcounts_) {
    PLATTER_CO_TRY(co_await image_.change_incompatible(kDirty, 0));
    PLATTER_CO_TRY(co_await image_.file->flush());
  }
  allocation_prepared_ = true;
  co_return Result<void>{};
}

}  // namespace platter::format::qcow2
