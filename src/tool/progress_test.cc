#include "tool/progress.h"

#include <gtest/gtest.h>

namespace platter::tool {
namespace {

constexpr uint64_t kGiB = uint64_t{1} << 30;

TEST(ProgressBar, fits_the_terminal_and_leaves_the_last_column_free) {
  for (unsigned columns = 0; columns < 200; ++columns) {
    auto line = progress_bar_line(kGiB, 3 * kGiB, 2.0, columns);
    EXPECT_LE(line.size(), columns > 0 ? columns - 1 : 0) << columns;
    if (columns > 70) {
      EXPECT_EQ(line.size(), columns - 1);
    }
  }
}

TEST(ProgressBar, says_how_far_how_fast_and_how_long) {
  EXPECT_EQ(progress_bar_line(kGiB, 3 * kGiB, 2.0, 71),
            " 33% [=======>                  ] 1 GiB of 3 GiB, 512 MiB/s, 0:04 left");
  EXPECT_EQ(progress_bar_line(3 * kGiB, 3 * kGiB, 3.0, 63),
            "100% [====================] 3 GiB of 3 GiB, 1 GiB/s, took 0:03");
  EXPECT_EQ(progress_bar_line(0, 3 * kGiB, 0.0, 36), "  0% [               ] 0 B of 3 GiB");
}

TEST(ProgressBar, nothing_to_do_is_done) {
  EXPECT_EQ(progress_bar_line(0, 0, 1.0, 20).substr(0, 4), "100%");
}

struct Captured {
  std::string text;
  explicit Captured(auto work) {
    testing::internal::CaptureStdout();
    work();
    text = testing::internal::GetCapturedStdout();
  }
};

TEST(Progress, percent_text_is_printed_a_step_apart_and_always_at_the_ends) {
  Captured captured([] {
    Console console("platter");
    Progress progress(console, ProgressStyle::kPercent, 1.0);
    progress.update(0, 1000);
    progress.update(5, 1000);  // less than a step
    progress.update(250, 1000);
    progress.update(255, 1000);  // less than a step
    progress.update(1000, 1000);
    progress.complete();
    progress.finish();
    console.finish();
  });
  EXPECT_EQ(captured.text,
            "    (0.00/100%)\r    (25.00/100%)\r    (100.00/100%)\r    (100.00/100%)\r\n");
}

TEST(Progress, without_a_style_nothing_is_printed) {
  Captured captured([] {
    Console console("platter");
    Progress progress(console, ProgressStyle::kNone, 1.0);
    progress.update(1, 2);
    progress.complete();
    progress.finish();
    console.finish();
  });
  EXPECT_EQ(captured.text, "");
}

TEST(Progress, report_prints_the_percentage_to_standard_error) {
  testing::internal::CaptureStderr();
  {
    Console console("platter");
    Progress progress(console, ProgressStyle::kNone, 1.0);
    progress.report();
    progress.update(2, 4);
    progress.update(1, 4);
    progress.report();
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "    (0.00/100%)\n    (50.00/100%)\n");
}

}  // namespace
}  // namespace platter::tool
