// Compressed writes. Clusters are compressed on the worker threads, side by side; the writes then
// take their turns, in the order in which they came, at finding a place, so that a file that is
// written from front to back is laid out so. What does not compress is written like any other data.

#include <algorithm>
#include <deque>

#include "base/try.h"
#include "format/qcow2/driver.h"

namespace platter::format::qcow2 {
namespace {

// What one worker compresses in one go: long enough to be worth waking a thread for.
constexpr uint64_t kGroupBytes = uint64_t{256} << 10;

// The most that a stream may take. One that saves less is not worth its decompression.
size_t longest_stream(uint64_t cluster_size) { return cluster_size - cluster_size / 64; }

}  // namespace

struct Qcow2::CompressedWrite {
  struct Stream {
    size_t length = 0;  // 0: does not compress
    const uint8_t* data = nullptr;
    uint64_t host_offset = 0;  // 0: has no place yet
    bool linked = false;
  };
  // Clusters [begin, end) that all compress.
  struct Run {
    size_t begin;
    size_t end;
    InFlightAllocations::Allocation allocation;
    bool in_flight = false;
  };

  uint64_t offset;  // guest
  io::BufferList buffers;
  io::AlignedBuffer packed = {};
  std::vector<Stream> streams = {};  // one a cluster
  std::deque<Run> runs = {};
};

io::Task<Result<void>> Qcow2::write_compressed(uint64_t offset, io::BufferList buffers) {
  io::Turns::Turn turn(compressed_turns_);
  PLATTER_CO_TRY(check_writable());
  if (encryption_ != nullptr)
    co_return fail(ENOTSUP, "qcow2: Compressed data would not be encrypted");
  const Geometry& geometry = image_.geometry;
  if (!geometry.is_aligned(offset) ||
      (!geometry.is_aligned(buffers.size()) && offset + buffers.size() != size())) {
    co_return fail_errno(EINVAL);
  }
  CompressedWrite write{.offset = offset, .buffers = buffers};
  write.streams.resize(geometry.clusters_for(buffers.size()));
  write.packed = compressors_.take_buffer(write.streams.size() << geometry.cluster_bits);
  co_await compress(write);
  co_await turn.begin();
  auto result = co_await place_compressed(write);
  turn.end();
  if (result) result = co_await write_placed(write);
  if (!write.runs.empty()) {
    auto lock = co_await image_.allocation.lock();
    if (result && image_.corrupt) result = std::unexpected(image_.corrupt_error());
    if (result) result = co_await link_compressed(write);
    co_await end_compressed(write);
  }
  compressors_.return_buffer(std::move(write.packed));
  co_return result;
}

io::Task<void> Qcow2::compress(CompressedWrite& write) {
  const size_t clusters = write.streams.size();
  const size_t group = std::max<size_t>(kGroupBytes >> image_.geometry.cluster_bits, 1);
  if (clusters <= group) {
    co_await compress_group(write, 0, clusters);
  } else {
    std::vector<io::Task<bool>> groups;
    for (size_t begin = 0; begin < clusters; begin += group)
      groups.push_back(compress_group(write, begin, std::min(begin + group, clusters)));
    co_await io::when_all(std::move(groups));
  }
  for (size_t begin = 0; begin < clusters;) {
    size_t end = begin + 1;
    const bool compresses = write.streams[begin].length != 0;
    while (end < clusters && (write.streams[end].length != 0) == compresses) ++end;
    if (compresses) write.runs.push_back({.begin = begin, .end = end, .allocation = {}});
    begin = end;
  }
}

// The streams of a group lie one behind the other, from where the first cluster would begin.
io::Task<bool> Qcow2::compress_group(CompressedWrite& write, size_t begin, size_t end) {
  const auto work = [this, &write, begin, end] {
    const uint64_t cluster_size = image_.geometry.cluster_size();
    const CompressionType type = image_.header.compression_type;
    io::AlignedBuffer scratch;
    uint8_t* out = write.packed.data() + begin * cluster_size;
    for (size_t i = begin; i < end; ++i) {
      const uint64_t at = i * cluster_size;
      const io::BufferList guest =
          write.buffers.sub(at, std::min(cluster_size, write.buffers.size() - at));
      const uint8_t* in = guest.contiguous();
      if (in == nullptr || guest.size() < cluster_size) {
        if (scratch.size() == 0) scratch = compressors_.take_buffer(cluster_size);
        guest.copy_to(scratch.span().first(guest.size()));
        std::memset(scratch.data() + guest.size(), 0, cluster_size - guest.size());
        in = scratch.data();
      }
      const size_t length =
          compressors_.compress(type, {in, cluster_size}, {out, longest_stream(cluster_size)});
      write.streams[i] = {.length = length, .data = out};
      out += length;
    }
    if (scratch.size() != 0) compressors_.return_buffer(std::move(scratch));
    return true;
  };
  co_return co_await io::Reactor::current()->call(work);
}

io::Task<Result<void>> Qcow2::place_compressed(CompressedWrite& write) {
  for (CompressedWrite::Run& run : write.runs) {
    const uint64_t first = write.offset >> image_.geometry.cluster_bits;
    const unsigned units_bits = image_.geometry.cluster_bits - image_.geometry.subcluster_bits();
    run.allocation.first = (first + run.begin) << units_bits;
    run.allocation.end = (first + run.end) << units_bits;
    for (;;) {
      PLATTER_CO_TRY(co_await relieve_pressure());
      InFlightAllocations::Waiting waiting;
      {
        auto lock = co_await image_.allocation.lock();
        PLATTER_CO_TRY(check_writable());
        auto* other = in_flight_.find(run.allocation.first, run.allocation.end);
        if (other == nullptr) {
          PLATTER_CO_TRY(co_await place_run(write, run.begin, run.end));
          in_flight_.add(run.allocation);
          run.in_flight = true;
          break;
        }
        InFlightAllocations::wait_for(*other, waiting);
      }
      co_await waiting.ended.wait();
    }
  }
  co_return Result<void>{};
}

// Under the allocation mutex.
io::Task<Result<void>> Qcow2::place_run(CompressedWrite& write, size_t begin, size_t end) {
  const Geometry& geometry = image_.geometry;
  const unsigned bits = geometry.cluster_bits;
  PLATTER_CO_TRY(co_await prepare_allocation());
  const uint64_t guest_end = write.offset + (uint64_t{end} << bits);
  for (uint64_t guest = write.offset + (uint64_t{begin} << bits); guest < guest_end;) {
    PLATTER_CO_ASSIGN(const Run run, co_await mapping_.lookup(guest, guest_end - guest));
    if (run.kind != ClusterKind::kUnallocated && run.kind != ClusterKind::kZero)
      co_return fail_errno(EIO);
    guest += run.length;
  }
  for (size_t i = begin; i < end; ++i) {
    const uint64_t guest = write.offset + (uint64_t{i} << bits);
    if (i == begin || geometry.l2_index(guest) == 0)
      PLATTER_CO_TRY(co_await mapping_.ensure_table(guest));
    CompressedWrite::Stream& stream = write.streams[i];
    PLATTER_CO_ASSIGN(stream.host_offset, co_await refcounts_.allocate_bytes(stream.length));
  }
  co_return Result<void>{};
}

// Streams that are neighbours in the file go down in one write. No lock is held.
io::Task<Result<void>> Qcow2::write_placed(CompressedWrite& write) {
  const uint64_t cluster_size = image_.geometry.cluster_size();
  compressed_written_.store(true, std::memory_order_relaxed);
  co_await image_.file->pass(block::DebugEvent::kWriteCompressed);
  std::vector<iovec> pieces;
  pieces.reserve(write.streams.size());
  std::vector<io::Task<Result<void>>> writes;
  const size_t clusters = write.streams.size();
  for (size_t begin = 0; begin < clusters;) {
    size_t end = begin + 1;
    if (write.streams[begin].length == 0) {
      while (end < clusters && write.streams[end].length == 0) ++end;
      const uint64_t at = begin * cluster_size;
      const uint64_t length = std::min(end * cluster_size, write.buffers.size()) - at;
      writes.push_back(write_slow(write.offset + at, write.buffers.sub(at, length)));
      begin = end;
      continue;
    }
    const uint64_t host_offset = write.streams[begin].host_offset;
    const size_t first_piece = pieces.size();
    uint64_t host_end = host_offset;
    for (end = begin; end < clusters && write.streams[end].length != 0 &&
                      write.streams[end].host_offset == host_end;
         ++end) {
      const CompressedWrite::Stream& stream = write.streams[end];
      auto* data = const_cast<uint8_t*>(stream.data);
      const bool joined =
          pieces.size() > first_piece &&
          static_cast<uint8_t*>(pieces.back().iov_base) + pieces.back().iov_len == data;
      if (joined) {
        pieces.back().iov_len += stream.length;
      } else {
        pieces.push_back({data, stream.length});
      }
      host_end += stream.length;
    }
    writes.push_back(image_.file->write(
        host_offset, io::BufferList(std::span<const iovec>(pieces).subspan(first_piece))));
    begin = end;
  }
  for (auto& result : co_await io::when_all(std::move(writes))) PLATTER_CO_TRY(std::move(result));
  co_return Result<void>{};
}

// Under the allocation mutex: from here on readers see the streams.
io::Task<Result<void>> Qcow2::link_compressed(CompressedWrite& write) {
  const unsigned bits = image_.geometry.cluster_bits;
  {
    // What was decompressed last may have lain where these do, before it was freed.
    std::lock_guard lock(last_mutex_);
    last_.reset();
  }
  for (const CompressedWrite::Run& run : write.runs) {
    for (size_t i = run.begin; i < run.end;) {
      const uint64_t guest = write.offset + (uint64_t{i} << bits);
      PLATTER_CO_ASSIGN(auto pin, co_await mapping_.writable_slice(guest));
      const bool extended = image_.geometry.extended_l2;
      pin.change([&](SliceWords words) {
        for (size_t index = mapping_.index_in_slice(guest);
             index < mapping_.slice_entries() && i < run.end; ++index, ++i) {
          CompressedWrite::Stream& stream = write.streams[i];
          words.set(extended ? 2 * index : index,
                    encode_compressed(stream.host_offset, stream.length, bits));
          if (extended) words.set(2 * index + 1, 0);
          stream.linked = true;
        }
      });
      pin.mark_dirty();
      image_.changed(kUndurableData);
    }
  }
  co_return Result<void>{};
}

// Under the allocation mutex: gives back the places of streams that are not linked.
io::Task<void> Qcow2::end_compressed(CompressedWrite& write) {
  for (const CompressedWrite::Stream& stream : write.streams) {
    if (stream.linked || stream.host_offset == 0) continue;
    auto released = co_await refcounts_.release_bytes(stream.host_offset, stream.length);
    if (!released) image_.log->warning("qcow2: Clusters leaked: " + released.error().message());
  }
  for (CompressedWrite::Run& run : write.runs) {
    if (run.in_flight) in_flight_.remove(run.allocation);
  }
}

}  // namespace platter::format::qcow2
