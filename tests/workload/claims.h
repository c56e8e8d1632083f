// RangeClaims: keeps the ranges of concurrent requests apart, to the byte, so that the outcome of
// each is known while their neighbours in the same sector or cluster run beside them. Thread-safe.
#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

namespace platter::workload {

class RangeClaims {
 public:
  enum class Kind { kShared, kExclusive };

  bool try_claim(uint64_t offset, uint64_t length, Kind kind) {
    std::lock_guard lock(mutex_);
    for (const Claim& claim : claims_) {
      bool overlaps = offset < claim.offset + claim.length && claim.offset < offset + length;
      if (overlaps && (kind == Kind::kExclusive || claim.kind == Kind::kExclusive)) return false;
    }
    claims_.push_back({offset, length, kind});
    return true;
  }

  void release(uint64_t offset, uint64_t length, Kind kind) {
    std::lock_guard lock(mutex_);
    for (Claim& claim : claims_) {
      if (claim.offset != offset || claim.length != length || claim.kind != kind) continue;
      claim = claims_.back();
      claims_.pop_back();
      return;
    }
  }

 private:
  struct Claim {
    uint64_t offset;
    uint64_t length;
    Kind kind;
  };
  std::mutex mutex_;
  std::vector<Claim> claims_;
};

}  // namespace platter::workload
