// SlowRequests: says in the log which requests took longer than they may, and where their time
// went:
//
//   disk.qcow2: slow request: write of 4096 bytes at 1048576 took 215.3 ms: 0.0 ms in the queue,
//   1.2 ms in the block layer, 214.1 ms in files
//
// No more than kLinesASecond of them; how many were left out stands in the next line.
//
// Any thread; what is not slow costs a comparison.
#pragma once

#include <string>

#include "base/line_limit.h"
#include "base/log.h"
#include "io/reactor.h"
#include "virtio/blk/request.h"

namespace platter::virtio::blk {

class SlowRequests {
 public:
  static constexpr unsigned kLinesASecond = 10;

  struct Times {
    io::Nanoseconds total{};
    io::Nanoseconds in_queue{};  // taken from the ring, and not begun
    io::Nanoseconds in_files{};
  };

  // `log` outlives it. `name`: of the disk.
  SlowRequests(const base::Log& log, std::string name, io::Nanoseconds limit)
      : log_(log), name_(std::move(name)), limit_(limit) {}

  // `now`: of the reactors' clock.
  void ended(const Request& request, const Times& times, io::Nanoseconds now) {
    if (times.total >= limit_) [[unlikely]]
      report(request, times, now);
  }

 private:
  void report(const Request& request, const Times& times, io::Nanoseconds now);

  const base::Log& log_;
  const std::string name_;
  const io::Nanoseconds limit_;
  base::LineLimit lines_{kLinesASecond};
};

}  // namespace platter::virtio::blk
