#include "tool/chart.h"

#include <gtest/gtest.h>

namespace platter::tool {
namespace {

TEST(CellGrid, CellsHoldWhatLiesInThem) {
  CellGrid grid(1000, 4, 1, 2);
  EXPECT_EQ(grid.cells(), 4u);
  EXPECT_EQ(grid.cell_bytes(), 250u);
  grid.add(0, 200, 100);
  grid.add(1, 300, 700);
  EXPECT_EQ(grid.bytes(0, 0), 50u);
  EXPECT_EQ(grid.bytes(1, 0), 50u);
  EXPECT_EQ(grid.bytes(1, 1), 200u);
  EXPECT_EQ(grid.bytes(3, 1), 250u);
  EXPECT_EQ(grid.total(0), 100u);
  EXPECT_EQ(grid.rest(), 200u);
}

TEST(CellGrid, CellsAreNoSmallerThanAsked) {
  const CellGrid grid(100, 1000, 64, 1);
  EXPECT_EQ(grid.cells(), 2u);
  EXPECT_EQ(grid.bytes_of_cell(0), 64u);
  EXPECT_EQ(grid.bytes_of_cell(1), 36u);
}

TEST(CellGrid, AnyLengthHasFewCells) {
  CellGrid grid(INT64_MAX, 1536, 65536, 1);
  EXPECT_LE(grid.cells(), 1536u);
  grid.add(0, 0, UINT64_MAX);
  EXPECT_EQ(grid.total(0), uint64_t{INT64_MAX});
  EXPECT_EQ(grid.rest(), 0u);
}

TEST(CellGrid, EmptyAndOutside) {
  CellGrid none(0, 16, 512, 1);
  EXPECT_EQ(none.cells(), 0u);
  none.add(0, 0, 10);
  EXPECT_EQ(none.total(0), 0u);
  CellGrid grid(100, 16, 1, 1);
  grid.add(0, 90, 100);
  grid.add(0, 100, 1);
  EXPECT_EQ(grid.total(0), 10u);
}

Chart small_chart(std::string filename) {
  return {.filename = std::move(filename),
          .format = "raw",
          .file = CellGrid(4096, 16, 512, block::kFileUses),
          .guest = CellGrid(4096, 16, 512, block::kGuestUses)};
}

TEST(ChartSvg, TextCannotLeaveItsElement) {
  const auto svg = chart_svg(small_chart("a<b>&\"\x1b\xff"));
  EXPECT_NE(svg.find("a&lt;b&gt;&amp;&quot;\\x1b\\xff"), svg.npos);
  EXPECT_EQ(svg.find('\x1b'), svg.npos);
}

TEST(ChartSvg, LongNamesAreCutBetweenCharacters) {
  std::string name;
  for (int i = 0; i < 100; ++i) name += "\xe2\x82\xac";
  const auto svg = chart_svg(small_chart(name));
  EXPECT_EQ(svg.find("\\x"), svg.npos);
}

TEST(ChartText, SmallLettersForWhatIsMostlyUnused) {
  auto chart = small_chart("a");
  chart.file.add(static_cast<size_t>(block::FileUse::kData), 0, 512);
  chart.file.add(static_cast<size_t>(block::FileUse::kLeaked), 512, 100);
  const auto text = chart_text(chart, 80, false);
  EXPECT_NE(text.find("\nDl......\n"), text.npos) << text;
  EXPECT_NE(text.find("\n........\n"), text.npos) << text;
  EXPECT_EQ(text.find('\x1b'), text.npos);
  EXPECT_NE(chart_text(chart, 80, true).find("\x1b["), std::string::npos);
}

}  // namespace
}  // namespace platter::tool
