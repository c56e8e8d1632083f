// World: where a randomised run happens — real reactors with either engine and the system's files,
// or a simulation — so that one workload serves all of them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "io/file.h"
#include "io/reactor.h"
#include "io/task.h"
#include "platter/error.h"

namespace platter::workload {

class World {
 public:
  virtual ~World() = default;
  virtual const std::vector<io::Reactor*>& reactors() const = 0;
  virtual io::FileSystem& files() = 0;
  // Runs `task` on the first reactor and waits for its end.
  virtual Result<void> run(io::Task<Result<void>> task) = 0;
  // Makes what this world knows as `path` visible to other programs, under the same path.
  virtual Result<std::string> visible_path(const std::string& path) = 0;
};

enum class WorldKind { kUring, kThreads, kSimulated };

// "io_uring", "threads", "simulated".
const char* world_kind_name(WorldKind kind);

std::unique_ptr<World> make_world(WorldKind kind, unsigned reactors, uint64_t seed);

}  // namespace platter::workload
