// What a Runtime holds. For this room alone.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "base/log.h"
#include "block/graph.h"
#include "block/registry.h"
#include "block/secret_source.h"
#include "io/reactor_group.h"
#include "platter/runtime.h"

namespace platter {

// What the embedder has given. Any thread.
class SecretStore final : public block::SecretSource {
 public:
  void set(std::string_view id, std::span<const uint8_t> bytes);
  bool remove(std::string_view id);
  Result<base::SecretBytes> secret(std::string_view id) const override;

 private:
  mutable std::mutex mutex_;
  std::map<std::string, base::SecretBytes, std::less<>> secrets_;
};

struct Runtime::State {
  explicit State(base::Log the_log)
      : log(std::move(the_log)), graph({registry, io::system_files(), log, &secrets}) {}

  // Requests are dealt out to the reactors in turn.
  io::Reactor& next_reactor() {
    return reactors->at(turn.fetch_add(1, std::memory_order_relaxed) % reactors->size());
  }

  base::Log log;
  SecretStore secrets;
  block::DriverRegistry registry = block::DriverRegistry::builtin();
  block::Graph graph;
  std::unique_ptr<io::ReactorGroup> reactors;
  std::atomic<unsigned> turn{0};
};

}  // namespace platter
