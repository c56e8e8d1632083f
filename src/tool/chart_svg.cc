// The picture of an image as SVG. Sizes are in the document's own units.

#include <algorithm>
#include <iterator>

#include "base/size.h"
#include "fmt/format.h"
#include "inspect/report.h"
#include "tool/chart.h"

namespace platter::tool {
namespace {

constexpr double kWidth = 1024;
constexpr double kMargin = 32;
constexpr size_t kColumns = 64;
constexpr double kCell = 14;
constexpr double kPitch = (kWidth - 2 * kMargin) / kColumns;  // of cells: they lie a little apart
constexpr double kStripHeight = 12;
constexpr double kStripWidth = (kWidth - 2 * kMargin - 24) / 2;
constexpr double kLine = 20;
constexpr double kLegendColumn = (kWidth - 2 * kMargin) / 3;

constexpr std::string_view kStyle = R"(
  rect, path { shape-rendering: crispEdges } .bg { fill: #ffffff } .free { fill: #e9ebef } text { fill: #20242b; font: 13px system-ui,
  "Helvetica Neue", Arial, sans-serif } .title { font-size: 20px; font-weight: 600 }
  .head { font-size: 15px; font-weight: 600 } .soft { fill: #687080 }
  @media (prefers-color-scheme: dark) { .bg { fill: #16191f } .free { fill: #2a2f38 }
  text { fill: #e6e9ee } .soft { fill: #9aa3b2 } }
)";

// XML has no way to write control characters and takes no broken UTF-8.
std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : inspect::printable(text)) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default: out += c;
    }
  }
  return out;
}

// From the middle, so that a long path shows where it begins and ends.
std::string shortened(std::string_view text, size_t most) {
  if (text.size() <= most) return std::string(text);
  const size_t half = most / 2;
  // Not within a character.
  size_t begin = half;
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xc0) == 0x80) --begin;
  size_t end = text.size() - half;
  while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) ++end;
  return std::string(text.substr(0, begin)) + "…" + std::string(text.substr(end));
}

struct Box {
  double x;
  double y;
  double width;
  double height;
};
using Colours = std::vector<std::string_view>;  // by use

template <typename Use>
Colours colours_of(size_t uses) {
  Colours colours;
  for (size_t use = 0; use < uses; ++use) colours.push_back(style_of(static_cast<Use>(use)).colour);
  return colours;
}

class SvgChart {
 public:
  explicit SvgChart(const Chart& chart) : chart_(chart) {}

  std::string draw() {
    title();
    section(fmt::format("In the file — {}", base::format_size(chart_.file.length())), chart_.file);
    grid(chart_.file, colours_of<block::FileUse>(block::kFileUses));
    legend<block::FileUse>(chart_.file, "not in use");
    section(fmt::format("As the guest sees it — {}", base::format_size(chart_.guest.length())),
            chart_.guest);
    grid(chart_.guest, guest_colours_);
    legend<block::GuestUse>(chart_.guest,
                            chart_.has_backing ? "from the backing file" : "nothing stored");
    snapshots();
    for (const auto& line : chart_summary(chart_)) label(kMargin, line, "soft");
    const double height = y_ + kMargin / 2;
    return fmt::format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1:.0f}\" width=\"{0}\" "
        "height=\"{1:.0f}\" role=\"img\">\n<title>{2}</title>\n<style>{3}</style>\n"
        "<rect class=\"bg\" width=\"100%\" height=\"100%\"/>\n{4}</svg>\n",
        kWidth, height, escaped(chart_.filename), kStyle, body_);
  }

 private:
  void rectangle(Box box, std::string_view fill) {
    fmt::format_to(
        std::back_inserter(body_),
        "<rect x=\"{:.6g}\" y=\"{:.6g}\" width=\"{:.4g}\" height=\"{:.4g}\" {}=\"{}\"/>\n", box.x,
        box.y, box.width, box.height, fill.starts_with('#') ? "fill" : "class", fill);
  }

  void label(double x, std::string_view text, std::string_view kind, double advance = kLine) {
    fmt::format_to(std::back_inserter(body_),
                   "<text x=\"{:.6g}\" y=\"{:.6g}\" class=\"{}\">{}</text>\n", x, y_ + 14, kind,
                   escaped(text));
    y_ += advance;
  }

  void title() {
    label(kMargin, shortened(chart_.filename, 80), "title", 26);
    std::string line = chart_.format;
    if (chart_.cluster_size != 0) {
      line += fmt::format(", clusters of {}", base::format_size(chart_.cluster_size));
    }
    if (chart_.has_backing) line += ", on a backing file";
    label(kMargin, line, "soft", 30);
  }

  void section(std::string_view name, const CellGrid& cells) {
    label(kMargin, name, "head", 0);
    fmt::format_to(std::back_inserter(body_),
                   "<text x=\"{:.6g}\" y=\"{:.6g}\" class=\"soft\" text-anchor=\"end\">{}</text>\n",
                   kWidth - kMargin, y_ + 14,
                   cells.cells() == 0
                       ? "empty"
                       : fmt::format("a square is {}", base::format_size(cells.cell_bytes())));
    y_ += 26;
  }

  // Squares of one colour are one path: a tenth of the text.
  static void append(std::string& path, Box box) {
    fmt::format_to(std::back_inserter(path), "M{:.6g} {:.6g}h{:.4g}v{:.4g}h-{:.4g}z", box.x, box.y,
                   box.width, box.height, box.width);
  }

  void paths(const std::string& free, const std::vector<std::string>& used,
             const Colours& colours) {
    if (!free.empty()) body_ += "<path class=\"free\" d=\"" + free + "\"/>\n";
    for (size_t use = 0; use < used.size(); ++use) {
      if (used[use].empty()) continue;
      body_ += fmt::format("<path fill=\"{}\" d=\"{}\"/>\n", colours[use], used[use]);
    }
  }

  // A cell is filled from below, in the order of the uses.
  static void cell(const CellGrid& cells, size_t index, Box box, std::vector<std::string>& used) {
    const auto whole = static_cast<double>(cells.bytes_of_cell(index));
    double bottom = box.y + box.height;
    for (size_t use = 0; use < cells.uses(); ++use) {
      if (cells.bytes(index, use) == 0) continue;
      // What is there at all can be seen.
      const double share = static_cast<double>(cells.bytes(index, use)) / whole;
      const double height = std::min(std::max(share * box.height, 1.5), bottom - box.y);
      if (height <= 0) break;
      append(used[use], {box.x, bottom - height, box.width, height});
      bottom -= height;
    }
  }

  void grid(const CellGrid& cells, const Colours& colours) {
    std::string free;
    std::vector<std::string> used(cells.uses());
    for (size_t i = 0; i < cells.cells(); ++i) {
      const Box box = {kMargin + static_cast<double>(i % kColumns) * kPitch,
                       y_ + static_cast<double>(i / kColumns) * kPitch, kCell, kCell};
      uint64_t bytes = 0;
      for (size_t use = 0; use < cells.uses(); ++use) bytes += cells.bytes(i, use);
      if (bytes < cells.bytes_of_cell(i)) append(free, box);
      cell(cells, i, box, used);
    }
    paths(free, used, colours);
    const size_t rows = (cells.cells() + kColumns - 1) / kColumns;
    y_ += static_cast<double>(rows) * kPitch + 10;
  }

  void strip(const CellGrid& cells, double x, const Colours& colours) {
    rectangle({x, y_, kStripWidth, kStripHeight}, "free");
    const double pitch = kStripWidth / static_cast<double>(std::max<size_t>(cells.cells(), 1));
    std::vector<std::string> used(cells.uses());
    for (size_t i = 0; i < cells.cells(); ++i) {
      cell(cells, i, {x + static_cast<double>(i) * pitch, y_, pitch, kStripHeight}, used);
    }
    paths({}, used, colours);
  }

  void legend_entry(size_t index, std::string_view fill, std::string_view name, uint64_t bytes,
                    uint64_t whole) {
    const double x = kMargin + static_cast<double>(index % 3) * kLegendColumn;
    if (index != 0 && index % 3 == 0) y_ += kLine;
    rectangle({x, y_ + 3, 12, 12}, fill);
    label(x + 20,
          fmt::format("{}: {} ({:.1f}%)", name, base::format_size(bytes),
                      100.0 * static_cast<double>(bytes) / static_cast<double>(whole)),
          "", 0);
  }

  template <typename Use>
  void legend(const CellGrid& cells, std::string_view rest_name) {
    size_t index = 0;
    for (size_t use = 0; use < cells.uses(); ++use) {
      if (cells.total(use) == 0) continue;
      const UseStyle& style = style_of(static_cast<Use>(use));
      legend_entry(index++, style.colour, style.name, cells.total(use), cells.length());
    }
    if (cells.rest() != 0) legend_entry(index++, "free", rest_name, cells.rest(), cells.length());
    y_ += kLine + 18;
  }

  void snapshots() {
    if (chart_.snapshots.empty()) return;
    constexpr double kRightStrip = kWidth - kMargin - kStripWidth;
    label(kMargin, "Snapshots", "head", 0);
    y_ += 24;
    label(kMargin, "where their clusters lie in the file", "soft", 0);
    label(kRightStrip, "what their guest sees", "soft", 24);
    for (const auto& snapshot : chart_.snapshots) {
      label(kMargin,
            fmt::format("{} — {}, {} of it its own", shortened(snapshot.name, 60),
                        base::format_size(snapshot.host_bytes),
                        base::format_size(snapshot.exclusive_bytes)),
            "", kLine);
      strip(snapshot.file, kMargin, {style_of(block::FileUse::kSnapshotOnly).colour});
      strip(snapshot.guest, kRightStrip, guest_colours_);
      y_ += kStripHeight + 10;
    }
    if (chart_.snapshots_left_out != 0) {
      label(kMargin, fmt::format("and {} more", chart_.snapshots_left_out), "soft");
    }
    y_ += 10;
  }

  const Chart& chart_;
  const Colours guest_colours_ = colours_of<block::GuestUse>(block::kGuestUses);
  std::string body_;
  double y_ = kMargin - 8;
};

}  // namespace

std::string chart_svg(const Chart& chart) { return SvgChart(chart).draw(); }

}  // namespace platter::tool
