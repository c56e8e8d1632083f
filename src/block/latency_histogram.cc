#include "block/latency_histogram.h"

#include <algorithm>

#include "base/assert.h"
#include "base/math.h"
#include "block/node_state.h"
#include "io/reactor.h"

namespace platter::block {

constexpr size_t kBinsPerLine = 128 / sizeof(uint64_t);

LatencyHistogram::LatencyHistogram(LatencyBoundaries boundaries)
    : boundaries_(std::move(boundaries)),
      stride_(base::align_up(bin_count(), kBinsPerLine)),
      bins_(stride_ * io::kMaxReactors) {
  PLATTER_ASSERT(!boundaries_.empty() && boundaries_.front() > 0 &&
                 std::ranges::is_sorted(boundaries_, std::less_equal<uint64_t>()));
}

void LatencyHistogram::add(unsigned slot, uint64_t nanoseconds) {
  const auto bin = std::ranges::upper_bound(boundaries_, nanoseconds) - boundaries_.begin();
  // Written by the reactor's own thread alone.
  std::atomic<uint64_t>& counter = bins_[slot * stride_ + static_cast<size_t>(bin)];
  counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

std::vector<uint64_t> LatencyHistogram::bins() const {
  std::vector<uint64_t> sums(bin_count());
  for (size_t first = 0; first < bins_.size(); first += stride_) {
    for (size_t i = 0; i < sums.size(); ++i)
      sums[i] += bins_[first + i].load(std::memory_order_relaxed);
  }
  return sums;
}

void set_latency_histogram(Node& node, LatencyKind kind,
                           std::optional<LatencyBoundaries> boundaries) {
  auto& held = node.state().latencies;
  if (held == nullptr) held = std::make_unique<LatencyHistograms>();
  held->of[static_cast<size_t>(kind)] =
      boundaries ? std::make_unique<LatencyHistogram>(std::move(*boundaries)) : nullptr;
  if (std::ranges::all_of(held->of, [](const auto& one) { return one == nullptr; })) held.reset();
}

const LatencyHistogram* latency_histogram(const Node& node, LatencyKind kind) {
  const auto& held = node.state().latencies;
  return held == nullptr ? nullptr : held->of[static_cast<size_t>(kind)].get();
}

}  // namespace platter::block
