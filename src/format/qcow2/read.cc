// Reading: through normal, zero, unallocated and compressed clusters.

#include <fmt/format.h>

#include <algorithm>

#include "base/try.h"
#include "format/qcow2/driver.h"
#include "format/qcow2/metadata_io.h"

namespace platter::format::qcow2 {
namespace {
// Runs of one request that are read at the same time.
constexpr size_t kParallelRuns = 16;
}  // namespace

// The cluster that was decompressed last: sequential readers ask for it in pieces.
struct Qcow2::LastDecompressed {
  uint64_t entry = 0;
  std::vector<uint8_t> bytes;
};

Qcow2::~Qcow2() = default;

bool Qcow2::reads_zero(ClusterKind kind) const {
  return kind == ClusterKind::kZero || kind == ClusterKind::kZeroAllocated ||
         (kind == ClusterKind::kUnallocated && image_.node->backing() == nullptr);
}

bool Qcow2::run_reads_zero(ClusterKind kind, uint64_t offset) const {
  if (kind != ClusterKind::kUnallocated) return reads_zero(kind);
  const block::Child* backing = image_.node->backing();
  return backing == nullptr || offset >= backing->size();
}

io::Task<Result<void>> Qcow2::read(uint64_t offset, io::BufferList buffers) {
  const uint64_t length = buffers.size();
  auto run = mapping_.try_lookup(offset, length);
  if (run && run->length == length && length <= size() - std::min(size(), offset)) [[likely]] {
    if (run->kind == ClusterKind::kNormal) {
      return read_padded(*image_.file, run->host_offset, buffers);
    }
    if (reads_zero(run->kind)) {
      buffers.fill_zero();
      return io::Task<Result<void>>::ready();
    }
  }
  return read_slow(offset, buffers);
}

io::Task<Result<void>> Qcow2::read_slow(uint64_t offset, io::BufferList buffers) {
  const uint64_t end = size();
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
    parts.push_back(read_run(run, at, part));
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
    case ClusterKind::kNormal: return read_padded(*image_.file, run.host_offset, buffers);
    case ClusterKind::kCompressed: return read_compressed(run, offset, buffers);
    case ClusterKind::kUnallocated: return read_backing(offset, buffers);
    case ClusterKind::kZero:
    case ClusterKind::kZeroAllocated: buffers.fill_zero(); return io::Task<Result<void>>::ready();
    case ClusterKind::kInvalid: break;
  }
  PLATTER_ASSERT(false);
  __builtin_unreachable();
}

io::Task<Result<void>> Qcow2::read_backing(uint64_t offset, io::BufferList buffers) {
  block::Child* backing = image_.node->backing();
  if (backing == nullptr) {
    buffers.fill_zero();
    return io::Task<Result<void>>::ready();
  }
  return read_padded(*backing, offset, buffers);
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
    const CompressedSpan span = decode_compressed(run.entry, geometry.cluster_bits);
    io::AlignedBuffer payload(span.length);
    PLATTER_CO_TRY(co_await read_padded(*image_.file, span.host_offset, payload.view()));
    auto fresh = std::make_shared<LastDecompressed>();
    fresh->entry = run.entry;
    fresh->bytes.resize(geometry.cluster_size());
    const auto decompress = [this, in = payload.span(), out = std::span<uint8_t>(fresh->bytes)] {
      return decompressors_.decompress(image_.header.compression_type, in, out);
    };
    auto result = co_await io::Reactor::current()->call(decompress);
    if (!result) {
      co_return std::unexpected(std::move(result).error().with_context(fmt::format(
          "qcow2: Could not decompress the cluster at guest offset {:#x}", offset - in_cluster)));
    }
    cluster = std::move(fresh);
    std::lock_guard lock(last_mutex_);
    last_ = cluster;
  }
  buffers.copy_from(std::span(cluster->bytes).subspan(in_cluster, buffers.size()));
  co_return Result<void>{};
}

io::Task<Result<block::BlockStatus>> Qcow2::status(uint64_t offset, uint64_t length,
                                                   block::StatusDetail detail) {
  length = std::min(length, size() - std::min(size(), offset));
  if (length == 0) co_return block::BlockStatus{.eof = true};
  PLATTER_CO_ASSIGN(const Run run, co_await mapping_.lookup_long(offset, length));
  block::BlockStatus status;
  status.length = run.length;
  status.eof = offset + run.length == size();
  status.allocated = run.kind != ClusterKind::kUnallocated;
  status.compressed = run.kind == ClusterKind::kCompressed;
  status.data = run.kind == ClusterKind::kNormal || run.kind == ClusterKind::kCompressed;
  status.zero = run.kind == ClusterKind::kZero || run.kind == ClusterKind::kZeroAllocated;
  if (run.kind == ClusterKind::kNormal || run.kind == ClusterKind::kZeroAllocated) {
    status.has_host_offset = true;
    status.host_offset = run.host_offset;
    status.host = &image_.file->node();
  }
  if (status.data && detail == block::StatusDetail::kPrecise) {
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
