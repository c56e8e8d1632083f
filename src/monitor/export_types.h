// The kinds of exports that are part of the library: vhost-user-blk and nbd.
//
// An export's queues run on every reactor there is; one that names an I/O thread runs on the one
// reactor that stands for it, which polls as the thread is told to.
#pragma once

#include <vector>

#include "base/log.h"
#include "io/reactor.h"
#include "monitor/exports.h"
#include "monitor/nbd_server.h"
#include "monitor/objects.h"

namespace platter::monitor {

class BuiltinExportTypes final : public ExportTypes {
 public:
  // All of it outlives the exports. `reactors`: at least one.
  BuiltinExportTypes(std::vector<io::Reactor*> reactors, const Objects& objects, NbdServer& nbd,
                     const base::Log& log)
      : reactors_(std::move(reactors)), objects_(objects), nbd_(nbd), log_(log) {}

  // Of exports that are made from now on, requests that take longer are told of in the log.
  void set_slow_request(io::Nanoseconds time) { slow_request_ = time; }

  bool knows(std::string_view type) const override {
    return type == "vhost-user-blk" || type == "nbd";
  }
  io::Task<Result<std::unique_ptr<BlockExport>>> start(BlockExportOptions options) override;

 private:
  io::Task<Result<std::vector<io::Reactor*>>> reactors_for(std::string iothread);

  const std::vector<io::Reactor*> reactors_;
  const Objects& objects_;
  NbdServer& nbd_;
  const base::Log& log_;
  io::Nanoseconds slow_request_{};
};

}  // namespace platter::monitor
