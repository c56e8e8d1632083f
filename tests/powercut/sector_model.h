// SectorModel: which contents each 512-byte sector of an image may have, now and after a power cut.
//
// A sector has one settled content, which a completed flush promised, and the later ones that were
// written over it since, in order. Any of those may be found after a cut; a flush settles the last
// write that had completed when the flush was asked for. Contents are known by a stamp, so that the
// model holds no bytes. Writers of one sector take turns (the harness keeps their ranges apart).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "platter/error.h"

namespace platter::powercut {

inline constexpr uint64_t kSectorSize = 512;

using Stamp = uint64_t;
inline constexpr Stamp kZeroStamp = 0;
inline constexpr Stamp kBackingStamp = 1;
inline constexpr Stamp kFirstWriteStamp = 2;

class SectorModel {
 public:
  // An image of `sectors` that never grows beyond `capacity` of them. The first `backing_sectors`
  // show the backing file.
  SectorModel(uint64_t capacity, uint64_t sectors, uint64_t backing_sectors, Stamp backing_seed);

  uint64_t capacity() const { return settled_.size() - 1; }
  uint64_t sectors() const { return current(capacity()); }
  bool has_backing() const { return backing_sectors_ != 0; }

  void begin_write(uint64_t first, uint64_t count, Stamp stamp);
  // `durable`: it was written through to stable storage.
  void end_write(uint64_t first, uint64_t count, Stamp stamp, bool durable);
  // Returns a ticket for end_flush; without an end_flush the flush has failed and promises nothing.
  uint64_t begin_flush() const { return clock_; }
  void end_flush(uint64_t ticket);

  // Every sector of `bytes` must hold what was last written to it.
  Result<void> expect_current(uint64_t first, std::span<const uint8_t> bytes) const;
  // Every sector must hold something that it may hold; that becomes its only, settled content.
  Result<void> settle(uint64_t first, std::span<const uint8_t> bytes);
  // The same, but what was found is a further write that no flush has settled: after a request that
  // failed or left the content open. `also`: a further stamp that may be found.
  Result<void> adopt(uint64_t first, std::span<const uint8_t> bytes, std::span<const Stamp> also);

  // The size of the image, in sectors, is a content like another: flushes settle it.
  void begin_resize(uint64_t sectors) { begin_write(capacity(), 1, sectors); }
  void end_resize(uint64_t sectors) { end_write(capacity(), 1, sectors, false); }
  // The size that was found must be one that it may have.
  Result<void> settle_size(uint64_t sectors);
  Result<void> adopt_size(uint64_t sectors);

  // What was last written to each sector.
  std::vector<Stamp> content() const;
  // As if all of `content`, and the size, were being written: an older content takes the place of
  // the present one.
  void begin_replace(std::span<const Stamp> content, uint64_t sectors);
  void end_replace(std::span<const Stamp> content, uint64_t sectors);

  // The bytes that `stamp` puts into `sector`.
  void fill(std::span<uint8_t> sector_bytes, uint64_t sector, Stamp stamp) const;

 private:
  struct Write {
    Stamp stamp;
    uint64_t completed_at;  // kInFlight: it has not
  };
  static constexpr uint64_t kInFlight = UINT64_MAX;

  Stamp current(uint64_t sector) const;
  // What a read may find after open-ended requests: the last completed write, and each later one.
  std::vector<Stamp> open_ended(uint64_t sector) const;
  bool holds(std::span<const uint8_t> bytes, uint64_t sector, Stamp stamp) const;
  Error unexpected_content(const char* when, uint64_t sector, std::span<const uint8_t> bytes) const;

  std::vector<Stamp> settled_;             // one a sector; the last one is the size
  std::vector<std::vector<Write>> later_;  // the same
  std::vector<uint64_t> unsettled_;        // sectors with something in later_; may repeat
  uint64_t backing_sectors_;
  Stamp backing_seed_;
  uint64_t clock_ = 1;
};

}  // namespace platter::powercut
