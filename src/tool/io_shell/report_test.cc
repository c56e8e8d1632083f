#include "tool/io_shell/report.h"

#include <gtest/gtest.h>

#include <vector>

namespace platter::tool::io_shell {
namespace {

TEST(ShellReport, TellsWhatWasDoneAndHowFast) {
  Report report = {.operation = "wrote", .offset = 65536, .bytes = 1536, .elapsed_ns = 500'000'000};
  EXPECT_EQ(report_text(report),
            "wrote 1536/1536 bytes at offset 65536\n"
            "1.500 KiB, 1 ops; 00.50 sec (3 KiB/sec and 2.0000 ops/sec)\n");
  report.style = ReportStyle::kCsv;
  EXPECT_EQ(report_text(report), "1536,1,0:00:00.50,3072.000,2.000\n");
  report.style = ReportStyle::kQuiet;
  EXPECT_EQ(report_text(report), "");
}

TEST(ShellReport, DumpsSixteenBytesALine) {
  std::vector<uint8_t> bytes(18, 0);
  bytes[1] = 'A';
  bytes[2] = ' ';
  bytes[17] = 'z';
  EXPECT_EQ(hex_dump(0xfffa, bytes),
            "0000fffa:  00 41 20 00 00 00 00 00 00 00 00 00 00 00 00 00  .A..............\n"
            "0001000a:  00 7a  .z\n");
  EXPECT_EQ(hex_dump(0, {}), "");
}

}  // namespace
}  // namespace platter::tool::io_shell
