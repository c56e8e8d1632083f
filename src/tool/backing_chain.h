// Finding an image in a chain by a name that a person gives.
#pragma once

#include <string>

#include "block/node.h"

namespace platter::tool {

// The node below `top` whose image is called `name`: as the overlay above it names it, as it was
// opened, or by a path that leads to the same file. Null: there is none.
block::Node* find_in_chain(const block::Node& top, const std::string& name);

}  // namespace platter::tool
