// FreeQueue: host clusters on their way from "unlinked" to "free".
//
// A cluster that a mapping has let go of passes three stations before the allocator may hand it out
// again:
//   1. queued    the unlinking is in memory
//   2. unlinked  a write-back round that began later has made it durable
//   3. quiet     every request that was in flight then has ended (it may have looked up the old
//   mapping), and the
//                file has been told to discard it, where that is wanted
// then its refcount drops. A failure on the way leaves the cluster counted: a leak, never a
// corruption. Thread-safe: a short mutex.
#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

namespace platter::format::qcow2 {

// Why: decides whether the file is told (pass-discard-*).
enum class FreeReason : uint8_t { kDiscard, kOther, kShrink };

struct FreedRange {
  uint64_t offset;  // host
  uint64_t clusters;
  FreeReason reason;
};

class FreeQueue {
 public:
  // Enough for the background task to start a round of its own, rather than wait for the guest's
  // flush.
  static constexpr uint64_t kManyClusters = 4096;

  explicit FreeQueue(unsigned cluster_bits) : cluster_bits_(cluster_bits) {}

  // Station 1. Under the allocation mutex.
  void add(uint64_t offset, uint64_t clusters, FreeReason reason);

  // A round begins (under the allocation mutex): what is queued goes with it.
  void round_begins();
  void round_ends(bool durable);

  // Station 2: takes all there is.
  std::vector<FreedRange> take_unlinked();

  bool has_queued() const;
  bool has_unlinked() const;
  bool has_many_queued() const;

 private:
  const unsigned cluster_bits_;
  mutable std::mutex mutex_;
  std::vector<FreedRange> queued_, in_round_, unlinked_;
  uint64_t queued_clusters_ = 0;
};

}  // namespace platter::format::qcow2
