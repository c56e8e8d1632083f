// What is known of the requests of a node's users.
#pragma once

#include "block/backend.h"

namespace platter::block {

// Of all backends that are on the node now, taken together.
BackendStatistics statistics(const Node& node);

}  // namespace platter::block
