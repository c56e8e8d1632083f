#include "tool/chart.h"

#include <algorithm>

#include "base/math.h"
#include "base/size.h"
#include "base/try.h"
#include "block/graph.h"
#include "fmt/format.h"

namespace platter::tool {
namespace {

using block::FileUse;
using block::GuestUse;

constexpr size_t kMaxCells = 1536;      // of the file's and of the guest's picture
constexpr size_t kMaxStripCells = 128;  // of a snapshot's
constexpr uint64_t kMinCellBytes = 512;

constexpr UseStyle kFileStyles[block::kFileUses] = {
    {"header", "#1b998b", 37, 'H'},           {"L1 table", "#6a3fa0", 91, 'I'},
    {"L2 tables", "#a97bd6", 140, 'M'},       {"refcounts", "#e0782f", 208, 'R'},
    {"snapshot table", "#2f6b2f", 22, 'T'},   {"bitmaps", "#b5893a", 137, 'B'},
    {"encryption", "#5d4037", 94, 'E'},       {"data", "#3b78d8", 33, 'D'},
    {"kept for zeroes", "#8fb4e8", 110, 'Z'}, {"compressed", "#17a2b8", 38, 'C'},
    {"VM state", "#c2577f", 168, 'V'},        {"only in snapshots", "#58a55c", 71, 'S'},
    {"leaked", "#d93025", 160, 'L'},
};
constexpr UseStyle kGuestStyles[block::kGuestUses] = {
    {"data", "#3b78d8", 33, 'D'},
    {"zeroes", "#8fb4e8", 110, 'Z'},
    {"compressed", "#17a2b8", 38, 'C'},
};

// ---- From a driver that knows its file

class Collector : public block::LayoutVisitor {
 public:
  explicit Collector(Chart& chart) : chart_(chart) {}

  void file_run(FileUse use, uint64_t offset, uint64_t length) override {
    chart_.file.add(static_cast<size_t>(use), offset, length);
  }

  void guest_run(const block::GuestRun& run) override {
    if (run.snapshot) {
      if (*run.snapshot < chart_.snapshots.size()) snapshot_run(run);
      return;
    }
    chart_.guest.add(static_cast<size_t>(run.use), run.offset, run.length);
    if (run.use == GuestUse::kCompressed) chart_.compressed_bytes += run.length;
    if (run.use == GuestUse::kZero) return;
    ++chart_.extents;
    chart_.mapped_bytes += run.length;
  }

 private:
  void snapshot_run(const block::GuestRun& run) {
    SnapshotShare& share = chart_.snapshots[*run.snapshot];
    share.guest.add(static_cast<size_t>(run.use), run.offset, run.length);
    if (!run.host_offset) return;
    share.file.add(0, *run.host_offset, run.host_length);
    share.host_bytes += run.host_length;
    // Compressed clusters share sectors: which of them nobody else needs is not known.
    if (!run.shared && run.use != GuestUse::kCompressed) share.exclusive_bytes += run.host_length;
  }

  Chart& chart_;
};

io::Task<Result<void>> collect_from_driver(block::Backend& backend, block::Charted& charted,
                                           Chart& chart) {
  chart.knows_metadata = true;
  PLATTER_CO_ASSIGN(const auto info, backend.node().driver().info());
  const size_t shown = std::min(info.snapshots.size(), block::Charted::kMaxChartedSnapshots);
  chart.snapshots_left_out = info.snapshots.size() - shown;
  const uint64_t cluster = std::max(chart.cluster_size, kMinCellBytes);
  for (size_t i = 0; i < shown; ++i) {
    const auto& snapshot = info.snapshots[i];
    chart.snapshots.push_back(
        {.name = snapshot.name.empty() ? snapshot.id : snapshot.name,
         .file = CellGrid(chart.file.length(), kMaxStripCells, cluster, 1),
         .guest = CellGrid(chart.guest.length(), kMaxStripCells, cluster, block::kGuestUses)});
  }
  Collector collector(chart);
  PLATTER_CO_ASSIGN(chart.check, co_await charted.chart(collector));
  co_return Result<void>{};
}

// ---- From block status, for a format without metadata of its own

io::Task<Result<void>> collect_from_status(block::Node& node, Chart& chart) {
  std::optional<uint64_t> next_host;
  for (uint64_t offset = 0; offset < node.size();) {
    PLATTER_CO_ASSIGN(const auto status, co_await node.status(offset, node.size() - offset,
                                                              block::StatusDetail::kPrecise));
    // A hole of a raw file reads as zeroes because nothing is there.
    if (status.data && !status.zero) {
      chart.guest.add(static_cast<size_t>(GuestUse::kData), offset, status.length);
      chart.mapped_bytes += status.length;
      if (!next_host || !status.has_host_offset || *next_host != status.host_offset) {
        ++chart.extents;
      }
      if (status.has_host_offset) {
        chart.file.add(static_cast<size_t>(FileUse::kData), status.host_offset, status.length);
        next_host = status.host_offset + status.length;
      }
    }
    offset += status.length;
  }
  co_return Result<void>{};
}

uint64_t file_length(const block::Node& node) {
  const block::Child* file = node.primary();
  return file != nullptr ? file->size() : node.size();
}

}  // namespace

CellGrid::CellGrid(uint64_t length, size_t max_cells, uint64_t min_cell_bytes, size_t uses)
    : length_(length),
      cell_bytes_(std::max<uint64_t>(base::divide_round_up(length, max_cells), 1)),
      uses_(uses),
      totals_(uses) {
  cell_bytes_ = base::divide_round_up(cell_bytes_, min_cell_bytes) * min_cell_bytes;
  cells_ = base::divide_round_up(length, cell_bytes_);
  bytes_.resize(cells_ * uses);
}

void CellGrid::add(size_t use, uint64_t offset, uint64_t length) {
  if (offset >= length_) return;
  length = std::min(length, length_ - offset);
  totals_[use] += length;
  while (length != 0) {
    const size_t cell = offset / cell_bytes_;
    const uint64_t part = std::min(length, (cell + 1) * cell_bytes_ - offset);
    bytes_[cell * uses_ + use] += part;
    offset += part;
    length -= part;
  }
}

uint64_t CellGrid::bytes_of_cell(size_t cell) const {
  return std::min(cell_bytes_, length_ - cell * cell_bytes_);
}

uint64_t CellGrid::rest() const {
  uint64_t used = 0;
  for (const uint64_t total : totals_) used += total;
  return length_ - std::min(used, length_);
}

const UseStyle& style_of(FileUse use) { return kFileStyles[static_cast<size_t>(use)]; }
const UseStyle& style_of(GuestUse use) { return kGuestStyles[static_cast<size_t>(use)]; }

io::Task<Result<Chart>> collect_chart(block::Backend& backend) {
  block::Node& node = backend.node().skip_filters();
  PLATTER_CO_ASSIGN(const auto info, node.driver().info());
  const uint64_t cluster = std::max(info.cluster_size, kMinCellBytes);
  Chart chart = {.filename = node.filename(),
                 .format = std::string(node.type().name),
                 .cluster_size = info.cluster_size,
                 .has_backing = node.driver().backing_reference().has_value(),
                 .file = CellGrid(file_length(node), kMaxCells, cluster, block::kFileUses),
                 .guest = CellGrid(node.size(), kMaxCells, cluster, block::kGuestUses)};
  if (auto* charted = node.driver().charted()) {
    PLATTER_CO_TRY(co_await collect_from_driver(backend, *charted, chart));
  } else {
    PLATTER_CO_TRY(co_await collect_from_status(node, chart));
  }
  co_return chart;
}

std::vector<std::string> chart_summary(const Chart& chart) {
  std::vector<std::string> lines;
  const auto size = [](uint64_t bytes) { return base::format_size(bytes); };
  lines.push_back(
      fmt::format("{} of the guest's {} have data, in {} piece{}{}", size(chart.mapped_bytes),
                  size(chart.guest.length()), chart.extents, chart.extents == 1 ? "" : "s",
                  chart.extents == 0 ? ""
                                     : " of " + size(chart.mapped_bytes / chart.extents) +
                                           (chart.extents == 1 ? "" : " on average")));
  if (chart.check.allocated_clusters != 0) {
    lines.push_back(fmt::format("{:.1f}% of its clusters are out of order, {:.1f}% compressed",
                                100.0 * static_cast<double>(chart.check.fragmented_clusters) /
                                    static_cast<double>(chart.check.allocated_clusters),
                                100.0 * static_cast<double>(chart.check.compressed_clusters) /
                                    static_cast<double>(chart.check.allocated_clusters)));
  }
  if (chart.check.corruptions != 0 || chart.check.check_errors != 0) {
    lines.push_back("The image is damaged and the picture not complete: platter check tells more");
  }
  return lines;
}

}  // namespace platter::tool
