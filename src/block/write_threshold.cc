#include "block/write_threshold.h"

#include <utility>

#include "block/node_state.h"

namespace platter::block {

void set_write_threshold(Node& node, uint64_t threshold, ThresholdObserver observer) {
  Node::State& s = node.state();
  s.threshold_observer = std::move(observer);
  s.write_threshold.store(threshold, std::memory_order_relaxed);
  s.choose_write_path();
}

uint64_t write_threshold(const Node& node) {
  return node.state().write_threshold.load(std::memory_order_relaxed);
}

void Node::State::raise_highest(uint64_t end) {
  uint64_t highest = highest_written.load(std::memory_order_relaxed);
  while (end > highest &&
         !highest_written.compare_exchange_weak(highest, end, std::memory_order_relaxed)) {
  }
}

void Node::State::pass_threshold(uint64_t end) {
  uint64_t threshold = write_threshold.load(std::memory_order_relaxed);
  // Of several writes one tells.
  do {
    if (threshold == 0 || end <= threshold) return;
  } while (!write_threshold.compare_exchange_weak(threshold, 0, std::memory_order_acq_rel));
  if (threshold_observer) threshold_observer(end - threshold, threshold);
}

}  // namespace platter::block
