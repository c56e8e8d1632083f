// What a Runtime holds. For this room alone.
#pragma once

#include <atomic>
#include <memory>

#include "base/log.h"
#include "block/graph.h"
#include "block/registry.h"
#include "io/reactor_group.h"
#include "platter/runtime.h"

namespace platter {

struct Runtime::State {
  explicit State(base::Log the_log)
      : log(std::move(the_log)), graph({registry, io::system_files(), log}) {}

  // Requests are dealt out to the reactors in turn.
  io::Reactor& next_reactor() {
    return reactors->at(turn.fetch_add(1, std::memory_order_relaxed) % reactors->size());
  }

  base::Log log;
  block::DriverRegistry registry = block::DriverRegistry::builtin();
  block::Graph graph;
  std::unique_ptr<io::ReactorGroup> reactors;
  std::atomic<unsigned> turn{0};
};

}  // namespace platter
