#include "format/qcow2/check.h"

#include <algorithm>
#include <cerrno>

#include "base/try.h"
#include "fmt/format.h"
#include "format/qcow2/reference_walk.h"
#include "format/qcow2/snapshots.h"
#include "format/qcow2/stored_counts.h"

namespace platter::format::qcow2 {

namespace {

// More clusters than this are not checked.
constexpr uint64_t kMaxClusters = INT32_MAX;
// Clusters without a count are all counted as errors, and this many are named: a sparse file may
// have any number.
constexpr uint64_t kMaxUnreadableLines = 65536;

// As C prints it: no prefix before a zero.
std::string in_c_hex(uint64_t value) { return value == 0 ? "0" : fmt::format("{:#x}", value); }

// A header that was parsed tolerantly may announce a table that cannot be one.
Result<void> check_snapshot_table_place(const Header& header) {
  if (header.snapshot_count > kMaxSnapshots) return fail(EFBIG, "snapshot table too large");
  if (!header.geometry().is_aligned(header.snapshots_offset) ||
      header.snapshots_offset > INT64_MAX - kMaxSnapshotTableBytes) {
    return fail(EINVAL, "snapshot table offset invalid");
  }
  return {};
}

io::Task<Result<SnapshotTable>> check_snapshot_table(block::Child& file, const Header& header,
                                                     block::CheckReporter& reporter,
                                                     block::CheckResult& result) {
  if (auto placed = check_snapshot_table_place(header); !placed) {
    reporter.report("ERROR " + placed.error().message());
    co_return std::unexpected(Error::from_errno(placed.error().code()));
  }
  auto table = co_await read_snapshot_table(file, header);
  if (!table) {
    reporter.report("ERROR failed to read the snapshot table: " + table.error().message());
    if (!table.error().hint().empty()) reporter.report(table.error().hint());
    co_return std::unexpected(Error::from_errno(table.error().code()));
  }
  for (size_t i = 0; i < table->snapshots.size(); ++i) {
    if (!table->snapshots[i].incomplete) continue;
    reporter.report(fmt::format("ERROR snapshot table entry {} is incomplete", i));
    ++result.corruptions;
  }
  co_return table;
}

// Stored counts against references, cluster by cluster.
class Comparison {
 public:
  Comparison(const Geometry& geometry, const StoredCounts& stored,
             const ReferenceCounts& references, block::CheckReporter& reporter,
             block::CheckResult& result)
      : geometry_(geometry),
        stored_(stored),
        references_(references),
        reporter_(reporter),
        result_(result) {}

  void run() {
    report_unreadable();
    uint64_t last_used = static_cast<uint64_t>(std::max<int64_t>(stored_.counts.last_used(), 0));
    ReferenceCounts::for_each_difference(stored_.counts, references_, [&](uint64_t cluster) {
      if (!is_unreadable(cluster)) {
        last_used = std::max(last_used, cluster);
        compare(cluster);
      }
      return true;
    });
    result_.image_end_offset = (last_used + 1) << geometry_.cluster_bits;
  }

 private:
  void compare(uint64_t cluster) {
    const uint64_t stored = stored_.counts.get(cluster);
    const uint64_t references = references_.get(cluster);
    if (stored == references) return;
    reporter_.report(fmt::format("{} cluster {} refcount={} reference={}",
                                 stored > references ? "Leaked" : "ERROR", cluster, stored,
                                 references));
    ++(stored > references ? result_.leaks : result_.corruptions);
  }

  bool is_unreadable(uint64_t cluster) const {
    return std::ranges::binary_search(stored_.unreadable, geometry_.refcount_table_index(cluster),
                                      {}, &StoredCounts::Unreadable::table_index);
  }

  void report_unreadable() {
    if (stored_.unreadable.empty()) return;
    report_unaligned_block();
    const uint64_t last = references_.clusters() - 1;
    const uint64_t clusters = last + (references_.get(last) != 0);
    uint64_t lines_left = kMaxUnreadableLines;
    for (const StoredCounts::Unreadable& bad : stored_.unreadable) {
      const uint64_t first = bad.table_index << geometry_.refcount_block_bits();
      const uint64_t end = std::min(first + geometry_.refcount_block_entries(), clusters);
      for (uint64_t cluster = first; cluster < end && lines_left != 0; ++cluster, --lines_left) {
        reporter_.report(
            fmt::format("Can't get refcount for cluster {}: {}", cluster, bad.error.message()));
      }
      if (first < end) result_.check_errors += end - first;
    }
  }

  void report_unaligned_block() {
    const auto bad =
        std::ranges::find(stored_.unreadable, true, &StoredCounts::Unreadable::unaligned);
    if (bad == stored_.unreadable.end()) return;
    reporter_.report(
        fmt::format("qcow2: Image is corrupt: Refblock offset {:#x} unaligned (reftable index: "
                    "{}); further non-fatal corruption events will be suppressed",
                    bad->offset, in_c_hex(bad->table_index)));
  }

  const Geometry geometry_;
  const StoredCounts& stored_;
  const ReferenceCounts& references_;
  block::CheckReporter& reporter_;
  block::CheckResult& result_;
};

}  // namespace

io::Task<Result<block::CheckResult>> check_image(block::Child& file, Header header,
                                                 block::CheckReporter& reporter,
                                                 CheckOptions options) {
  block::CheckResult result;
  const Geometry geometry = header.geometry();
  TableMeter meter(reporter);
  meter.expect(geometry.cluster_size());  // the header's: read last, as far as this goes
  options.meter = &meter;
  const uint64_t clusters = counted_clusters(file.size(), geometry);
  if (clusters > kMaxClusters) co_return std::unexpected(Error::from_errno(EFBIG));
  PLATTER_CO_ASSIGN(auto snapshots, co_await check_snapshot_table(file, header, reporter, result));
  PLATTER_CO_ASSIGN(const auto refcount_table, co_await read_refcount_table(file, header));
  PLATTER_CO_ASSIGN(auto stored,
                    co_await read_stored_counts(file, header, refcount_table, clusters, options));
  ReferenceWalk walk(file, header, &stored.counts, reporter, result, options);
  PLATTER_CO_TRY(co_await walk.run(refcount_table, std::move(snapshots)));

  // Clusters behind a table that could not be read would look leaked.
  if (result.check_errors != 0) co_return result;
  // The cluster after the file's last one exists only if something refers to it.
  if (walk.counts().get(clusters - 1) == 0 && !stored.counts.set(clusters - 1, 0)) {
    co_return std::unexpected(Error::from_errno(ENOMEM));
  }
  Comparison(geometry, stored, walk.counts(), reporter, result).run();
  if (result.check_errors == 0 && walk.copied_mismatches() != 0) {
    PLATTER_CO_TRY(co_await walk.report_copied_mismatches(refcount_table));
  }
  meter.add(geometry.cluster_size());
  co_return result;
}

io::Task<Result<ReferenceCounts>> count_reachable(block::Child& file, const Header& header,
                                                  block::CheckReporter& reporter,
                                                  block::CheckResult& result,
                                                  CheckOptions options) {
  if (counted_clusters(file.size(), header.geometry()) > kMaxClusters) {
    co_return std::unexpected(Error::from_errno(EFBIG));
  }
  PLATTER_CO_ASSIGN(auto snapshots, co_await check_snapshot_table(file, header, reporter, result));
  PLATTER_CO_ASSIGN(const auto refcount_table, co_await read_refcount_table(file, header));
  ReferenceWalk walk(file, header, nullptr, reporter, result, options);
  PLATTER_CO_TRY(co_await walk.run(refcount_table, std::move(snapshots)));
  if (result.check_errors != 0)
    co_return std::unexpected(Error(EIO, "Some of the image's tables cannot be read"));
  co_return walk.take_counts();
}

io::Task<Result<ReferenceCounts>> count_references(block::Child& file, Header header,
                                                   block::CheckReporter& reporter,
                                                   CheckOptions options) {
  block::CheckResult result;
  PLATTER_CO_ASSIGN(auto counts, co_await count_reachable(file, header, reporter, result, options));
  if (result.corruptions != 0)
    co_return std::unexpected(Error(EIO, "The image's tables are corrupt"));
  co_return counts;
}

}  // namespace platter::format::qcow2
