// A picture of an image, as data: what its file and its guest's view are used for, in a bounded
// number of cells however large the image.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "block/driver.h"
#include "tool/session.h"

namespace platter::tool {

// A range cut into equal cells; each knows how many of its bytes each use has.
class CellGrid {
 public:
  // At most `max_cells`, and none smaller than `min_cell_bytes`.
  CellGrid(uint64_t length, size_t max_cells, uint64_t min_cell_bytes, size_t uses);

  void add(size_t use, uint64_t offset, uint64_t length);

  uint64_t length() const { return length_; }
  size_t cells() const { return cells_; }
  uint64_t cell_bytes() const { return cell_bytes_; }
  size_t uses() const { return uses_; }
  // Of the last one, which may be cut short, too.
  uint64_t bytes_of_cell(size_t cell) const;
  uint64_t bytes(size_t cell, size_t use) const { return bytes_[cell * uses_ + use]; }
  uint64_t total(size_t use) const { return totals_[use]; }
  // What no use was named for.
  uint64_t rest() const;

 private:
  uint64_t length_;
  uint64_t cell_bytes_;
  size_t cells_;
  size_t uses_;
  std::vector<uint64_t> bytes_;
  std::vector<uint64_t> totals_;
};

struct SnapshotShare {
  std::string name;
  CellGrid file;   // one use: its clusters, shared ones included
  CellGrid guest;  // by block::GuestUse
  uint64_t host_bytes = 0;
  uint64_t exclusive_bytes = 0;  // that nothing else refers to
};

struct Chart {
  std::string filename;
  std::string format;
  uint64_t cluster_size = 0;  // 0: the format has none
  bool has_backing = false;
  bool knows_metadata = false;  // otherwise only data and holes are told apart
  CellGrid file;                // by block::FileUse
  CellGrid guest;               // by block::GuestUse
  std::vector<SnapshotShare> snapshots = {};
  size_t snapshots_left_out = 0;
  uint64_t extents = 0;  // runs of the guest's data that lie in the file in one piece
  uint64_t mapped_bytes = 0;
  uint64_t compressed_bytes = 0;  // of the guest's, stored compressed
  block::CheckResult check = {};
};

// How a use is shown, the same in every picture.
struct UseStyle {
  std::string_view name;
  std::string_view colour;  // #rrggbb, to be told from the others on light and on dark
  uint8_t terminal_colour;  // of the 256
  char glyph;
};
const UseStyle& style_of(block::FileUse use);
const UseStyle& style_of(block::GuestUse use);
inline constexpr char kFreeGlyph = '.';

io::Task<Result<Chart>> collect_chart(block::Backend& backend);

// A document of its own: no script, nothing loaded, a few hundred KiB at most.
std::string chart_svg(const Chart& chart);
// `columns` wide. With colours for a terminal that has them.
std::string chart_text(const Chart& chart, unsigned columns, bool colours);

// Sentences that both pictures have: totals and fragmentation.
std::vector<std::string> chart_summary(const Chart& chart);

}  // namespace platter::tool
