#include "format/qcow2/measure.h"

#include <algorithm>
#include <cerrno>

#include "base/math.h"
#include "base/try.h"
#include "block/backend.h"
#include "format/qcow2/create_layout.h"
#include "format/qcow2/create_options.h"
#include "io/when_all.h"

namespace platter::format::qcow2 {
namespace {

using block::Backend;
using block::Preallocation;

constexpr uint64_t kMinRangeBytes = uint64_t{256} << 20;
constexpr unsigned kRanges = 4096;  // that a large source is cut into
constexpr unsigned kWorkers = 16;

// Clusters of the target that hold something, counted over ranges of the source by several workers.
class DataCounter {
 public:
  DataCounter(Backend& source, uint64_t cluster_size)
      : source_(source),
        cluster_size_(cluster_size),
        range_bytes_(
            base::align_up(std::max(kMinRangeBytes, source.size() / kRanges), cluster_size)) {}

  io::Task<Result<uint64_t>> run() {
    std::vector<io::Task<Result<void>>> workers;
    for (unsigned i = 0; i < kWorkers; ++i) workers.push_back(work());
    for (auto& ended : co_await io::when_all(std::move(workers))) PLATTER_CO_TRY(std::move(ended));
    co_return clusters_;
  }

 private:
  io::Task<Result<void>> work() {
    while (next_ < source_.size()) {
      const uint64_t begin = next_;
      next_ += std::min(range_bytes_, source_.size() - begin);
      PLATTER_CO_TRY(co_await count(begin, next_));
    }
    co_return Result<void>{};
  }

  io::Task<Result<void>> count(uint64_t offset, uint64_t end) {
    uint64_t counted = offset;  // the cluster that begins here, and all later ones, are not counted
    while (offset < end) {
      PLATTER_CO_ASSIGN(const auto status,
                        co_await source_.status_above(nullptr, offset, end - offset,
                                                      block::StatusDetail::kPrecise));
      const uint64_t next = offset + status.length;
      if (status.data && !status.zero) {
        const uint64_t first = std::max(counted, base::align_down(offset, cluster_size_));
        const uint64_t last = base::align_up(next, cluster_size_);
        clusters_ += (last - first) / cluster_size_;
        counted = last;
      }
      offset = next;
    }
    co_return Result<void>{};
  }

  Backend& source_;
  const uint64_t cluster_size_;
  const uint64_t range_bytes_;  // of clusters, so that none is counted twice
  uint64_t next_ = 0;           // workers share one reactor
  uint64_t clusters_ = 0;
};

// What the directory, the tables and the bits of the source's bitmaps take.
std::optional<uint64_t> bitmap_bytes(Backend& source, const Geometry& geometry) {
  auto* store = source.node().skip_filters().driver().bitmap_store();
  if (store == nullptr || geometry.version < 3) return std::nullopt;
  constexpr uint64_t kEntryBytes = 24;  // of the directory, without the name
  uint64_t clusters = 0;
  uint64_t directory = 0;
  for (const auto& bitmap : store->bitmaps()) {
    const uint64_t bits = base::divide_round_up(source.size(), bitmap.granularity);
    const uint64_t data = geometry.clusters_for(base::divide_round_up(bits, 8));
    clusters += data + geometry.clusters_for(data * kTableEntryBytes);
    directory += base::align_up(kEntryBytes + bitmap.name.size(), 8);
  }
  return (clusters + geometry.clusters_for(directory)) << geometry.cluster_bits;
}

Error too_large() {
  return Error(EFBIG, "The image size is too large (try using a larger cluster size)");
}

}  // namespace

io::Task<Result<block::Measurement>> measure(const block::MeasureContext& context) {
  auto options = parse_create_options(context.options);
  if (!options && options.error().code() == EFBIG) co_return std::unexpected(too_large());
  PLATTER_CO_TRY(options);
  if (options->luks && options->key_secret.empty())
    co_return fail(EINVAL, "Parameter 'encrypt.key-secret' is required for cipher");
  // What is in a data file is measured too.
  Header& header = options->header;
  header.incompatible &= ~uint64_t{kExternalDataFile};
  const auto layout = plan_layout(header, /*preallocate=*/true, encryption_bytes(*options));
  if (!layout) co_return std::unexpected(too_large());
  const Geometry geometry = header.geometry();

  block::Measurement result;
  result.fully_allocated = layout->end << header.cluster_bits;
  uint64_t data = 0;
  if (options->preallocation == Preallocation::kFull ||
      options->preallocation == Preallocation::kFalloc) {
    data = layout->data_clusters;
  } else if (context.source != nullptr && !header.backing_file.empty()) {
    // Which clusters the backing file will show is not known.
    data = layout->data_clusters;
  } else if (context.source != nullptr) {
    DataCounter counter(*context.source, header.cluster_size());
    PLATTER_CO_ASSIGN(data, co_await counter.run());
  }
  result.required = (layout->end - layout->data_clusters + data) << header.cluster_bits;
  if (context.source != nullptr) result.bitmaps = bitmap_bytes(*context.source, geometry);
  co_return result;
}

}  // namespace platter::format::qcow2
