// The simulated World (io/simulation.h): one thread, virtual time, a seeded order of everything.
#pragma once

#include <memory>

#include "workload/world.h"

namespace platter::workload {

std::unique_ptr<World> make_simulated_world(unsigned reactors, uint64_t seed);

}  // namespace platter::workload
