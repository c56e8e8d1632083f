// Options of open nodes change: of all that are named at once, or of none.
#pragma once

#include <vector>

#include "block/graph.h"

namespace platter::block {

struct Reopening {
  Node* node;
  // All that it is told from now on, its children included; what is not named has its default. A
  // child may be named (it stays, or, if it is the file or the backing file, another node takes its
  // place), be null (there is no backing file any more) or have options of its own: then it is
  // reopened, too. A node with a backing file has to be told of one.
  base::Options options;
};

// A child that nobody but its parent has opened takes over what it was given with its parent's
// options: read-only, cache modes. The messages are those that a person reads who named the nodes.
// EINVAL: an option that cannot change, or not to this. EPERM: somebody uses a node in a way that
// it would not permit.
io::Task<Result<void>> reopen_nodes(Graph& graph, std::vector<Reopening> wishes);

}  // namespace platter::block
