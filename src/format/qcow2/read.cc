// Reading: through normal, zero, unallocated and compressed clusters.

#include <fmt/format.h>

#include <algorithm>

#include "base/try.h"
#include "format/qcow2/driver.h"
#include "format/qcow2/metadata_io.h"

namespace platter::format::qcow2 {

using block::DebugEvent;

namespace {
// Runs of one request that are read at the same time.
constexpr size_t kParallelRuns = 16;
// Guest bytes of compressed clusters that are read, and decompressed on one worker, in one go.
constexpr uint64_t kCompressedGroupBytes = uint64_t{256} << 10;
// Bytes between two compressed clusters that are rather read along.
constexpr uint64_t kMaxStreamGap = uint64_t{64} << 10;
}  // namespace

// The cluster that was decompressed last: sequential readers ask for it in pieces.
struct Qcow2::LastDecompressed {
  uint64_t entry = 0;
  std::vector<uint8_t> bytes;
};

Qcow2::~Qcow2() = default;

// Compressed clusters that are neighbours in the guest, and near each other in the file.
struct Qcow2::CompressedGroup {
  uint64_t offset;  // guest, of the first byte wanted
  std::vector<uint64_t> entries;
  uint64_t end = 0;  // guest
};

bool Qcow2::reads_zero(ClusterKind kind) const {
  return kind == ClusterKind::kZero || kind == ClusterKind::kZeroAllocated ||
         (shows_backing(kind) && image_.node->backing() == nullptr);
}

bool Qcow2::run_reads_zero(ClusterKind kind, uint64_t offset) const {
  if (!shows_backing(kind)) return reads_zero(kind);
  const block::Child* backing = image_.node->backing();
  return backing == nullptr || offset >= backing->size() || is_vm_state(offset);
}

io::Task<Result<void>> Qcow2::read(uint64_t offset, io::BufferList buffers) {
  const uint64_t length = buffers.size();
  auto run = mapping_.try_lookup(offset, length);
  if (run && run->length == length && length <= size() - std::min(size(), offset)) [[likely]] {
    if (run->kind == ClusterKind::kNormal && !image_.file->has_debug_points()) {
      return read_data(run->host_offset, offset, buffers);
    }
    if (reads_zero(run->kind)) {
      buffers.fill_zero();
      return io::Task<Result<void>>::ready();
    }
  }
  return read_slow(offset, buffers);
}

io::Task<Result<void>> Qcow2::read_slow(uint64_t offset, io::BufferList buffers) {
  const uint64_t end = is_vm_state(offset) ? UINT64_MAX : size();
  if (offset + buffers.size() > end) {
    const size_t inside = offset < end ? end - offset : 0;
    buffers.sub(inside, buffers.size() - inside).fill_zero();
    buffers = buffers.sub(0, inside);
  }
  std::vector<io::Task<Result<void>>> parts;
  size_t done = 0;
  while (done < buffers.size()) {
    const uint64_t at = offset + done;
    PLATTER_CO_ASSIGN(const Run run, co_await mapping_.lookup(at, buffers.size() - done));
    const io::BufferList part = buffers.sub(done, run.length);
    done += run.length;
    if (reads_zero(run.kind)) {
      part.fill_zero();
      continue;
    }
    if (parts.empty() && done == buffers.size()) co_return co_await read_run(run, at, part);
    if (run.kind == ClusterKind::kCompressed && done < buffers.size()) {
      CompressedGroup group{.offset = at, .entries = {run.entry}};
      PLATTER_CO_TRY(co_await extend_group(group, offset + buffers.size()));
      done = group.end - offset;
      parts.push_back(
          read_compressed_group(std::move(group), buffers.sub(at - offset, done - (at - offset))));
    } else {
      parts.push_back(read_run(run, at, part));
    }
    if (parts.size() < kParallelRuns && done < buffers.size()) continue;
    auto batch = std::exchange(parts, {});
    for (auto& result : co_await io::when_all(std::move(batch))) PLATTER_CO_TRY(std::move(result));
  }
  // Zeroes may have come last.
  for (auto& result : co_await io::when_all(std::move(parts))) PLATTER_CO_TRY(std::move(result));
  co_return Result<void>{};
}

io::Task<Result<void>> Qcow2::read_run(Run run, uint64_t offset, io::BufferList buffers) {
  switch (run.kind) {
    case ClusterKind::kNormal:
      if (image_.file->has_debug_points()) [[unlikely]]
        return read_data_at_point(run.host_offset, offset, buffers);
      return read_data(run.host_offset, offset, buffers);
    case ClusterKind::kCompressed: return read_compressed(run, offset, buffers);
    case ClusterKind::kUnallocated:
    case ClusterKind::kReserved: return read_backing(offset, buffers);
    case ClusterKind::kZero:
    case ClusterKind::kZeroAllocated: buffers.fill_zero(); return io::Task<Result<void>>::ready();
    case ClusterKind::kInvalid: break;
  }
  PLATTER_ASSERT(false);
  __builtin_unreachable();
}

io::Task<Result<void>> Qcow2::read_data(uint64_t host_offset, uint64_t guest_offset,
                                        io::BufferList buffers) {
  if (encryption_ != nullptr) [[unlikely]]
    return encryption_->read(host_offset, guest_offset, buffers);
  return read_padded(*image_.data, host_offset, buffers);
}

io::Task<Result<void>> Qcow2::read_data_at_point(uint64_t host_offset, uint64_t guest_offset,
                                                 io::BufferList buffers) {
  co_await image_.file->pass(DebugEvent::kReadAio);
  co_return co_await read_data(host_offset, guest_offset, buffers);
}

io::Task<Result<void>> Qcow2::read_backing(uint64_t offset, io::BufferList buffers) {
  block::Child* backing = image_.node->backing();
  if (backing == nullptr || is_vm_state(offset)) {
    buffers.fill_zero();
    return io::Task<Result<void>>::ready();
  }
  if (image_.file->has_debug_points()) [[unlikely]]
    return read_backing_at_point(offset, buffers);
  return read_padded(*backing, offset, buffers);
}

io::Task<Result<void>> Qcow2::read_backing_at_point(uint64_t offset, io::BufferList buffers) {
  co_await image_.file->pass(DebugEvent::kReadBackingAio);
  co_return co_await read_padded(*image_.node->backing(), offset, buffers);
}

io::Task<Result<void>> Qcow2::read_compressed(Run run, uint64_t offset, io::BufferList buffers) {
  const Geometry& geometry = image_.geometry;
  const uint64_t in_cluster = geometry.offset_in_cluster(offset);
  std::shared_ptr<const LastDecompressed> cluster;
  {
    std::lock_guard lock(last_mutex_);
    cluster = last_;
  }
  if (!cluster || cluster->entry != run.entry) {
    auto fresh = std::make_shared<LastDecompressed>();
    fresh->entry = run.entry;
    fresh->bytes.resize(geometry.cluster_size());
    CompressedGroup group{.offset = offset - in_cluster, .entries = {run.entry}};
    PLATTER_CO_TRY(co_await read_whole_clusters(std::move(group), io::BufferList(fresh->bytes)));
    cluster = std::move(fresh);
    std::lock_guard lock(last_mutex_);
    last_ = cluster;
  }
  buffers.copy_from(std::span(cluster->bytes).subspan(in_cluster, buffers.size()));
  co_return Result<void>{};
}

// Adds the compressed clusters that follow, up to guest offset `limit`, as far as their streams lie
// close behind in the file.
io::Task<Result<void>> Qcow2::extend_group(CompressedGroup& group, uint64_t limit) {
  const Geometry& geometry = image_.geometry;
  const uint64_t cluster_size = geometry.cluster_size();
  CompressedSpan last = decode_compressed(group.entries.back(), geometry.cluster_bits);
  group.end = geometry.align_down(group.offset) + cluster_size;
  while (group.end < limit && group.entries.size() * cluster_size < kCompressedGroupBytes) {
    PLATTER_CO_ASSIGN(const Run run, co_await mapping_.lookup(group.end, limit - group.end));
    if (run.kind != ClusterKind::kCompressed) break;
    const CompressedSpan next = decode_compressed(run.entry, geometry.cluster_bits);
    if (next.host_offset < last.host_offset ||
        next.host_offset > last.host_offset + last.length + kMaxStreamGap) {
      break;
    }
    group.entries.push_back(run.entry);
    group.end += run.length;
    last = next;
  }
  group.end = std::min(group.end, limit);
  co_return Result<void>{};
}

// The first and the last cluster may be wanted in part.
io::Task<Result<void>> Qcow2::read_compressed_group(CompressedGroup group, io::BufferList buffers) {
  const Geometry& geometry = image_.geometry;
  const uint64_t head = geometry.offset_in_cluster(group.offset);
  const uint64_t whole = uint64_t{group.entries.size()} << geometry.cluster_bits;
  if (buffers.size() == whole) co_return co_await read_whole_clusters(std::move(group), buffers);
  io::AlignedBuffer bounce(whole);
  group.offset -= head;
  PLATTER_CO_TRY(co_await read_whole_clusters(std::move(group), bounce.view()));
  buffers.copy_from(bounce.span().subspan(head, buffers.size()));
  co_return Result<void>{};
}

io::Task<Result<void>> Qcow2::read_whole_clusters(CompressedGroup group, io::BufferList buffers) {
  const unsigned bits = image_.geometry.cluster_bits;
  const uint64_t start = decode_compressed(group.entries.front(), bits).host_offset;
  uint64_t end = start;
  for (uint64_t entry : group.entries) {
    const CompressedSpan span = decode_compressed(entry, bits);
    end = std::max(end, span.host_offset + span.length);
  }
  io::AlignedBuffer payload(end - start);
  co_await image_.file->pass(DebugEvent::kReadCompressed);
  PLATTER_CO_TRY(co_await read_padded(*image_.file, start, payload.view()));
  const auto decompress = [this, &group, &payload, buffers, start, bits]() -> Result<void> {
    std::vector<uint8_t> scratch;
    for (size_t i = 0; i < group.entries.size(); ++i) {
      const CompressedSpan span = decode_compressed(group.entries[i], bits);
      const io::BufferList guest = buffers.sub(i << bits, size_t{1} << bits);
      uint8_t* out = guest.contiguous();
      if (out == nullptr) {
        scratch.resize(guest.size());
        out = scratch.data();
      }
      auto done = decompressors_.decompress(
          image_.header.compression_type,
          payload.span().subspan(span.host_offset - start, span.length), {out, guest.size()});
      if (!done) {
        return std::unexpected(std::move(done).error().with_context(
            fmt::format("qcow2: Could not decompress the cluster at guest offset {:#x}",
                        group.offset + (i << bits))));
      }
      if (out == scratch.data()) guest.copy_from(scratch);
    }
    return {};
  };
  co_return co_await io::Reactor::current()->call(decompress);
}

io::Task<Result<block::BlockStatus>> Qcow2::status(uint64_t offset, uint64_t length,
                                                   block::StatusDetail detail) {
  length = std::min(length, size() - std::min(size(), offset));
  if (length == 0) co_return block::BlockStatus{.eof = true};
  PLATTER_CO_ASSIGN(const Run run, co_await mapping_.lookup_long(offset, length));
  block::BlockStatus status;
  status.length = run.length;
  status.eof = offset + run.length == size();
  status.allocated = !shows_backing(run.kind);
  status.compressed = run.kind == ClusterKind::kCompressed;
  status.data = run.kind == ClusterKind::kNormal || run.kind == ClusterKind::kCompressed;
  status.zero = run.kind == ClusterKind::kZero || run.kind == ClusterKind::kZeroAllocated;
  // What lies there is not what the guest sees if it is encrypted.
  if (has_host(run.kind) && image_.header.crypt_method == CryptMethod::kNone) {
    status.has_host_offset = true;
    status.host_offset = run.host_offset;
    status.host = &image_.data->node();
  }
  if (status.data && status.host != nullptr && detail == block::StatusDetail::kPrecise) {
    PLATTER_CO_ASSIGN(status.descend, co_await is_sparse());
  }
  co_return status;
}

io::Task<Result<bool>> Qcow2::is_sparse() {
  auto known = sparse_.load(std::memory_order_relaxed);
  if (known == Sparse::kUnknown) {
    // An image whose mapping was allocated ahead of its data occupies far less than its file is
    // long.
    auto allocated = co_await image_.file->node().driver().allocated_size();
    const uint64_t clusters = image_.file->size() >> image_.geometry.cluster_bits;
    const uint64_t on_disk = allocated ? *allocated >> image_.geometry.cluster_bits : clusters;
    known = clusters > std::max(on_disk * 10 / 9, on_disk + 2) ? Sparse::kYes : Sparse::kNo;
    sparse_.store(known, std::memory_order_relaxed);
  }
  co_return known == Sparse::kYes;
}

}  // namespace platter::format::qcow2
