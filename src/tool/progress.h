// Progress of long work, as the person or the script that ran the command sees it.
//
// With -p into a pipe or file: exactly what qemu-img prints, "    (12.34/100%)" and a carriage
// return each time that the percentage has grown by a step. On a terminal: one line with a bar,
// bytes, rate and the time left, redrawn at most ten times a second. report() prints the percentage
// to standard error, for a signal that asks, whether progress was asked for or not. Where events
// were asked for (tool/events.h) progress is one of them, whatever is drawn.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>

#include "tool/command.h"
#include "tool/console.h"

namespace platter::tool {

// kSilent: nothing is drawn, and somebody wants to know all the same (--progress-fd).
enum class ProgressStyle { kNone, kSilent, kPercent, kBar };

// By -p and -q as given and by what the output is. The program under its own name draws the bar on
// a terminal unasked.
ProgressStyle choose_progress_style(const Invocation& invocation);

class Progress {
 public:
  // `step_percent`: how much further qemu-img's text is printed again.
  Progress(Console& console, ProgressStyle style, double step_percent);
  ~Progress();  // ends the line
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Any thread. Cheap where there is nothing to draw.
  void update(uint64_t done, uint64_t total);
  // Any thread: one line, "    (12.34/100%)".
  void report();
  // The work has succeeded: 100 %.
  void complete();
  // Takes the bar off the screen, so that something else can be printed. It comes back with the
  // next update.
  void hide();
  // Ends the line; nothing is drawn after it.
  void finish();

 private:
  using Clock = std::chrono::steady_clock;

  void print_percent(double percent);
  void draw_bar(uint64_t done, uint64_t total);
  void clear_bar();

  Console& console_;
  const ProgressStyle style_;
  const double step_percent_;
  const Clock::time_point start_ = Clock::now();
  std::atomic<int64_t> next_draw_ns_;  // since start_
  std::atomic<uint64_t> done_ = 0;
  std::atomic<uint64_t> total_ = 0;

  std::mutex mutex_;             // what follows
  double printed_percent_ = -1;  // less than 0: nothing was
  bool drawn_ = false;
  bool finished_ = false;
};

// The bar's line, less than `columns` wide: " 45% [=====>     ] 1.2 GiB of 2.7 GiB, 512 MiB/s, 0:03
// left".
std::string progress_bar_line(uint64_t done, uint64_t total, double seconds, unsigned columns);

}  // namespace platter::tool
