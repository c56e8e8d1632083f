#include "format/qcow2/free_queue.h"

#include <utility>

namespace platter::format::qcow2 {
namespace {
void append(std::vector<FreedRange>& to, std::vector<FreedRange>& from) {
  if (to.empty()) {
    to.swap(from);
    return;
  }
  to.insert(to.end(), from.begin(), from.end());
  from.clear();
}
}  // namespace

void FreeQueue::add(uint64_t offset, uint64_t clusters, FreeReason reason) {
  std::lock_guard lock(mutex_);
  queued_clusters_ += clusters;
  if (!queued_.empty()) {
    FreedRange& last = queued_.back();
    if (last.reason == reason && last.offset + (last.clusters << cluster_bits_) == offset) {
      last.clusters += clusters;
      return;
    }
  }
  queued_.push_back({offset, clusters, reason});
}

void FreeQueue::round_begins() {
  std::lock_guard lock(mutex_);
  append(in_round_, queued_);
  queued_clusters_ = 0;
}

void FreeQueue::round_ends(bool durable) {
  std::lock_guard lock(mutex_);
  if (!durable) {
    for (const FreedRange& range : in_round_) queued_clusters_ += range.clusters;
  }
  append(durable ? unlinked_ : queued_, in_round_);
}

std::vector<FreedRange> FreeQueue::take_unlinked() {
  std::lock_guard lock(mutex_);
  return std::exchange(unlinked_, {});
}

bool FreeQueue::has_queued() const {
  std::lock_guard lock(mutex_);
  return !queued_.empty();
}

bool FreeQueue::has_unlinked() const {
  std::lock_guard lock(mutex_);
  return !unlinked_.empty();
}

bool FreeQueue::has_many_queued() const {
  std::lock_guard lock(mutex_);
  return queued_clusters_ >= kManyClusters;
}

}  // namespace platter::format::qcow2
