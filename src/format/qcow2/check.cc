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
  Comparison(const Geometry& geometry, const StoredCounts& stored, const ReferenceCounts& references,
             block::CheckReporter& reporter, block::CheckResult& result)
      : geometry_(geometry),
        stored_(stored),
        references_(references),
        reporter_(reporter),
        result_(result) {}

  void run() {
    if (!stored_.unreadable.empty()) return run_around_unreadable();
    ReferenceCounts::for_each_difference(stored_.counts, references_, [this](uint64_t cluster) {
      compare(cluster);
      return true;
    });
    const int64_t last = std::max({stored_.counts.last_used(), references_.last_used(), int64_t{0}});
    set_end(static_cast<uint64_t>(last));
  }

 private:
  void set_end(uint64_t last_used_cluster) {
    result_.image_end_offset = (last_used_cluster + 1) << geometry_.cluster_bits;
  }

  void compare(uint64_t cluster) {
    const uint64_t stored = stored_.counts.get(cluster);
    const uint64_t references = references_.get(cluster);
    if (stored == references) return;
    reporter_.report(fmt::format("{} cluster {} refcount={} reference={}",
                                 stored > references ? "Leaked" : "ERROR", cluster, stored,
                                 references));
    ++(stored > references ? result_.leaks : result_.corruptions);
  }

  void run_around_unreadable() {
    report_unaligned_block();
    uint64_t last_used = 0;
    const uint64_t clusters = references_.clusters() - (references_.get(references_.clusters() - 1) == 0);
    for (uint64_t cluster = 0; cluster < clusters; ++cluster) {
      const uint64_t index = geometry_.refcount_table_index(cluster);
      const auto bad = std::ranges::lower_bound(stored_.unreadable, index, {},
                                                &StoredCounts::Unreadable::table_index);
      if (bad != stored_.unreadable.end() && bad->table_index == index) {
        reporter_.report(fmt::format("Can't get refcount for cluster {}: {}", cluster,
                                     bad->error.message()));
        ++result_.check_errors;
        continue;
      }
      if (stored_.counts.get(cluster) != 0 || references_.get(cluster) != 0) last_used = cluster;
      compare(cluster);
    }
    set_end(last_used);
  }

  void report_unaligned_block() {
    const auto bad = std::ranges::find(stored_.unreadable, true, &StoredCounts::Unreadable::unaligned);
    if (bad == stored_.unreadable.end()) return;
    reporter_.report(fmt::format("qcow2: Image is corrupt: Refblock offset {:#x} unaligned (reftable index: "
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
  const uint64_t clusters = counted_clusters(file.size(), geometry);
  if (clusters > kMaxClusters) co_return std::unexpected(Error::from_errno(EFBIG));
  PLATTER_CO_ASSIGN(auto snapshots, co_await check_snapshot_table(file, header, reporter, result));
  PLATTER_CO_ASSIGN(const auto refcount_table, co_await read_refcount_table(file, header));
  PLATTER_CO_ASSIGN(auto stored, co_await read_stored_counts(file, header, refcount_table, clusters,
                                                             options));
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
  co_return result;
}

io::Task<Result<ReferenceCounts>> count_references(block::Child& file, Header header,
                                                   block::CheckReporter& reporter,
                                                   CheckOptions options) {
  block::CheckResult result;
  if (counted_clusters(file.size(), header.geometry()) > kMaxClusters) {
    co_return std::unexpected(Error::from_errno(EFBIG));
  }
  PLATTER_CO_ASSIGN(auto snapshots, co_await check_snapshot_table(file, header, reporter, result));
  PLATTER_CO_ASSIGN(const auto refcount_table, co_await read_refcount_table(file, header));
  ReferenceWalk walk(file, header, nullptr, reporter, result, options);
  PLATTER_CO_TRY(co_await walk.run(refcount_table, std::move(snapshots)));
  if (result.corruptions != 0 || result.check_errors != 0) {
    co_return std::unexpected(Error(EIO, "The image's tables are corrupt"));
  }
  co_return walk.take_counts();
}

}  // namespace platter::format::qcow2
