// Histograms of how long the requests of a node's users take, by kind.
//
// Counted by the backends on the node, as they keep accounts; each reactor has bins of its own, so
// that a request writes to no line that another reactor writes to.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace platter::block {

class Node;

// Zeroing counts as writing.
enum class LatencyKind : unsigned { kRead, kWrite, kZoneAppend, kFlush };
inline constexpr size_t kLatencyKinds = 4;

// In nanoseconds: each bin ends before its boundary, the last one has no end. Positive and strictly
// ascending.
using LatencyBoundaries = std::vector<uint64_t>;

class LatencyHistogram {
 public:
  explicit LatencyHistogram(LatencyBoundaries boundaries);

  // `slot`: of the reactor.
  void add(unsigned slot, uint64_t nanoseconds);
  const LatencyBoundaries& boundaries() const { return boundaries_; }
  size_t bin_count() const { return boundaries_.size() + 1; }
  std::vector<uint64_t> bins() const;

 private:
  const LatencyBoundaries boundaries_;
  const size_t stride_;  // bins of a reactor, filled up to whole cache lines
  std::vector<std::atomic<uint64_t>> bins_;
};

struct LatencyHistograms {
  std::array<std::unique_ptr<LatencyHistogram>, kLatencyKinds> of;  // null: not counted
};

// Counting starts anew, at zero; none: it ends. Called with no request in flight.
void set_latency_histogram(Node& node, LatencyKind kind,
                           std::optional<LatencyBoundaries> boundaries);
// Null: nothing is counted.
const LatencyHistogram* latency_histogram(const Node& node, LatencyKind kind);

}  // namespace platter::block
