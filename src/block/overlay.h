// Overlays put on open images: a new node takes the place of one that is in use.
#pragma once

#include <string>
#include <vector>

#include "block/graph.h"

namespace platter::block {

// What is needed to take an overlay off again.
struct PutOverlay {
  Node* overlay;
  Node* node;
  std::vector<Child*> moved;  // edges that led to `node`
  std::string filename;       // of the overlay, before
  bool backing_overridden;
};

// `overlay`, which nobody reads, gets `node` for its backing file, and whoever used `node` uses the
// overlay from now on. Both are in a drained section. `node` stays as writable as it was opened.
// EINVAL, EBUSY: what stands in the way, in words; nothing has changed.
io::Task<Result<PutOverlay>> put_overlay(Graph& graph, Node& overlay, Node& node);

// Takes back what put_overlay() did, in the same drained section.
io::Task<void> take_off_overlay(Graph& graph, PutOverlay put);

}  // namespace platter::block
