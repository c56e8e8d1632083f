// What is known of the requests of a node's users.
#pragma once

#include "block/backend.h"

namespace platter::block {

// Of all backends that are on the node now, taken together.
BackendStatistics statistics(const Node& node);

// The end of the write that reached farthest since the node was opened, whoever wrote; 0: none did.
uint64_t highest_written(const Node& node);

}  // namespace platter::block
