// ServeStatus: one line about a disk that is being served, drawn again and again on a terminal.
#pragma once

#include <string>

#include "block/backend.h"
#include "io/reactor.h"
#include "tool/console.h"

namespace platter::tool {

// "connected  12.3k reads/s 45.6 MB/s 0.12 ms  0.0k writes/s ...": what happened between the two
// accounts, which are so far apart.
std::string describe_activity(bool connected, const block::BackendStatistics& before,
                              const block::BackendStatistics& now, io::Nanoseconds between);

class ServeStatus {
 public:
  explicit ServeStatus(Console& console) : console_(console) {}
  ~ServeStatus();  // ends the line
  ServeStatus(const ServeStatus&) = delete;
  ServeStatus& operator=(const ServeStatus&) = delete;

  void draw(bool connected, const block::BackendStatistics& now, io::Nanoseconds since_last);

 private:
  Console& console_;
  block::BackendStatistics last_{};
  bool drawn_ = false;
};

}  // namespace platter::tool
