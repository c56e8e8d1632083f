// The picture of an image as text: a character a cell.

#include <algorithm>

#include "base/size.h"
#include "fmt/format.h"
#include "inspect/report.h"
#include "tool/chart.h"

namespace platter::tool {
namespace {

constexpr unsigned kMinColumns = 32;
constexpr unsigned kMaxColumns = 128;
constexpr unsigned kMaxRows = 12;

class TextChart {
 public:
  TextChart(unsigned columns, bool colours)
      : columns_(std::clamp(columns, kMinColumns, kMaxColumns)), colours_(colours) {}

  template <typename Use>
  void draw(const CellGrid& grid) {
    const size_t shown = std::min<size_t>(grid.cells(), size_t{columns_} * kMaxRows);
    for (size_t i = 0; i < shown; ++i) {
      out += glyph<Use>(grid, i * grid.cells() / shown, (i + 1) * grid.cells() / shown);
      if ((i + 1) % columns_ == 0 || i + 1 == shown) out += "\n";
    }
  }

  template <typename Use>
  void legend(const CellGrid& grid, std::string_view rest_name) {
    for (size_t use = 0; use < grid.uses(); ++use) {
      if (grid.total(use) != 0)
        line(style_of(static_cast<Use>(use)), grid.total(use), grid.length());
    }
    if (grid.rest() != 0) line({rest_name, "", 0, kFreeGlyph}, grid.rest(), grid.length());
  }

  std::string out;

 private:
  // What most of the cells [first, end) is used for; a small letter where most is not used at all.
  template <typename Use>
  std::string glyph(const CellGrid& grid, size_t first, size_t end) const {
    uint64_t all = 0;
    uint64_t used = 0;
    uint64_t most_bytes = 0;
    size_t most = 0;
    for (size_t cell = first; cell < end; ++cell) all += grid.bytes_of_cell(cell);
    for (size_t use = 0; use < grid.uses(); ++use) {
      uint64_t bytes = 0;
      for (size_t cell = first; cell < end; ++cell) bytes += grid.bytes(cell, use);
      used += bytes;
      if (bytes > most_bytes) {
        most_bytes = bytes;
        most = use;
      }
    }
    if (most_bytes == 0) return std::string(1, kFreeGlyph);
    const UseStyle& style = style_of(static_cast<Use>(most));
    const bool small = used * 2 < all;
    return paint(style, small ? static_cast<char>(style.glyph - 'A' + 'a') : style.glyph, !small);
  }

  std::string paint(const UseStyle& style, char glyph, bool filled) const {
    if (!colours_ || style.terminal_colour == 0) return std::string(1, glyph);
    return filled ? fmt::format("\x1b[97;48;5;{}m{}\x1b[0m", style.terminal_colour, glyph)
                  : fmt::format("\x1b[38;5;{}m{}\x1b[0m", style.terminal_colour, glyph);
  }

  void line(const UseStyle& style, uint64_t bytes, uint64_t whole) {
    out += fmt::format("  {} {:<24}{:>10}{:>7.1f}%\n", paint(style, style.glyph, true), style.name,
                       base::format_size(bytes),
                       100.0 * static_cast<double>(bytes) / static_cast<double>(whole));
  }

  const unsigned columns_;
  const bool colours_;
};

}  // namespace

std::string chart_text(const Chart& chart, unsigned columns, bool colours) {
  TextChart text(columns, colours);
  text.out = fmt::format("{} ({})\n\nIn the file, {}:\n", inspect::printable(chart.filename),
                         chart.format, base::format_size(chart.file.length()));
  text.draw<block::FileUse>(chart.file);
  text.legend<block::FileUse>(chart.file, "not in use");
  text.out += fmt::format("\nAs the guest sees it, {}:\n", base::format_size(chart.guest.length()));
  text.draw<block::GuestUse>(chart.guest);
  text.legend<block::GuestUse>(chart.guest,
                               chart.has_backing ? "from the backing file" : "nothing stored");
  if (!chart.snapshots.empty()) text.out += "\nSnapshots:\n";
  for (const auto& snapshot : chart.snapshots) {
    text.out += fmt::format("  {:<26}{:>10}, {} of it its own\n", inspect::printable(snapshot.name),
                            base::format_size(snapshot.host_bytes),
                            base::format_size(snapshot.exclusive_bytes));
  }
  if (chart.snapshots_left_out != 0) {
    text.out += fmt::format("  and {} more\n", chart.snapshots_left_out);
  }
  text.out += "\n";
  for (const auto& line : chart_summary(chart)) text.out += line + "\n";
  return text.out;
}

}  // namespace platter::tool
