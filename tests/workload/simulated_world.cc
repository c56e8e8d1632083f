#include "workload/simulated_world.h"

#include <utility>

#include "base/try.h"
#include "io/simulation.h"

namespace platter::workload {

namespace {

// One operation in a thousand is cut short: whoever calls must carry on with the rest.
constexpr uint32_t kShortTransfersPpm = 1000;

class SimulatedWorld final : public World {
 public:
  SimulatedWorld(unsigned reactors, uint64_t seed)
      : simulation_(seed, {.reactors = reactors, .short_transfers_ppm = kShortTransfersPpm}) {
    for (unsigned i = 0; i < reactors; ++i) reactors_.push_back(&simulation_.reactor(i));
  }

  const std::vector<io::Reactor*>& reactors() const override { return reactors_; }
  io::FileSystem& files() override { return simulation_.files(); }
  Result<void> run(io::Task<Result<void>> task) override {
    return simulation_.run(std::move(task));
  }
  Result<std::string> visible_path(const std::string& path) override {
    PLATTER_TRY(simulation_.disk().export_file(path, path));
    return path;
  }

 private:
  io::Simulation simulation_;
  std::vector<io::Reactor*> reactors_;
};

}  // namespace

std::unique_ptr<World> make_simulated_world(unsigned reactors, uint64_t seed) {
  return std::make_unique<SimulatedWorld>(reactors, seed);
}

}  // namespace platter::workload
