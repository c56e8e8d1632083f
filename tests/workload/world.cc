#include "workload/world.h"

#include <utility>

#include "base/assert.h"
#include "base/try.h"
#include "io/reactor_group.h"
#include "workload/simulated_world.h"

namespace platter::workload {

namespace {

class RealWorld final : public World {
 public:
  RealWorld(io::EngineKind engine, unsigned reactors, uint64_t seed) {
    auto group = io::ReactorGroup::start(
        {.reactors = reactors, .engine = engine, .random_seed = seed + 1, .log = nullptr});
    PLATTER_ASSERT(group.has_value());
    group_ = std::move(*group);
    for (unsigned i = 0; i < reactors; ++i) reactors_.push_back(&group_->at(i));
  }

  const std::vector<io::Reactor*>& reactors() const override { return reactors_; }
  io::FileSystem& files() override { return io::system_files(); }
  Result<void> run(io::Task<Result<void>> task) override {
    return io::run_blocking(*reactors_.front(), std::move(task));
  }
  Result<std::string> visible_path(const std::string& path) override { return path; }

 private:
  std::unique_ptr<io::ReactorGroup> group_;
  std::vector<io::Reactor*> reactors_;
};

}  // namespace

const char* world_kind_name(WorldKind kind) {
  switch (kind) {
    case WorldKind::kUring: return "io_uring";
    case WorldKind::kThreads: return "threads";
    case WorldKind::kSimulated: break;
  }
  return "simulated";
}

std::unique_ptr<World> make_world(WorldKind kind, unsigned reactors, uint64_t seed) {
  if (kind == WorldKind::kSimulated) return make_simulated_world(reactors, seed);
  auto engine = kind == WorldKind::kUring ? io::EngineKind::kUring : io::EngineKind::kThreads;
  return std::make_unique<RealWorld>(engine, reactors, seed);
}

}  // namespace platter::workload
