// A byte of a node beyond which nobody has written yet: who has space for the image made in time
// wants to hear when somebody does.
#pragma once

#include <cstdint>
#include <functional>

namespace platter::block {

class Node;

// Called on the reactor of the request. `exceeded_by`: how far beyond `threshold` it reaches.
using ThresholdObserver = std::function<void(uint64_t exceeded_by, uint64_t threshold)>;

// The first write or zeroing that ends beyond it is told to `observer`, and takes the threshold
// away. 0: none. Called with no request in flight.
void set_write_threshold(Node& node, uint64_t threshold, ThresholdObserver observer);
uint64_t write_threshold(const Node& node);

}  // namespace platter::block
