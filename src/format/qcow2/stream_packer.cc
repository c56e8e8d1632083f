#include "format/qcow2/stream_packer.h"

#include <algorithm>

namespace platter::format::qcow2 {
namespace {

uint64_t first_sector(const Reference& stream) {
  return base::align_down(stream.offset, kSectorBytes);
}

uint64_t end_of_sectors(const Reference& stream) {
  return base::align_up(stream.offset + stream.bytes, kSectorBytes);
}

}  // namespace

StreamPacker::StreamPacker(const Geometry& geometry, std::vector<Hole> holes)
    : geometry_(geometry), holes_(std::move(holes)) {
  std::ranges::sort(holes_, [](const Hole& a, const Hole& b) {
    return a.bytes != b.bytes ? a.bytes > b.bytes : a.offset < b.offset;
  });
}

void StreamPacker::enter(const Hole& hole) {
  hole_ = hole;
  free_end_ = hole.offset + hole.bytes;
  counts_.assign(hole.bytes >> geometry_.cluster_bits, 0);
  run_ = {};
}

// Into the hole that it is at, `by` bytes downwards, if there is room and the counts allow it.
bool StreamPacker::place_by(const Reference& stream, uint64_t by) {
  if (first_sector(stream) < hole_.offset + by ||
      end_of_sectors(stream) - by > hole_.offset + hole_.bytes) {
    return false;
  }
  const unsigned bits = geometry_.cluster_bits;
  const uint64_t in_hole = stream.offset - by - hole_.offset;
  const uint64_t first = in_hole >> bits, last = (in_hole + stream.bytes - 1) >> bits;
  for (uint64_t i = first; i <= last; ++i) {
    if (counts_[i] > geometry_.max_refcount() - stream.weight) return false;
  }
  for (uint64_t i = first; i <= last; ++i) {
    if (counts_[i] == 0) filled_.push_back((hole_.offset >> bits) + i);
    counts_[i] += stream.weight;
  }
  free_end_ = std::min(free_end_, first_sector(stream) - by);
  return true;
}

bool StreamPacker::place(const Reference& stream) {
  const uint64_t begin = first_sector(stream), end = end_of_sectors(stream);
  if (run_.begin < end) {
    // It shares a sector with the one before. What overlaps it otherwise is no writer's work.
    if (end > run_.end || !place_by(stream, run_.by)) return false;
    run_.begin = std::min(run_.begin, begin);
    return true;
  }
  if (end <= free_end_ || end - begin > free_end_ - hole_.offset) return false;
  const uint64_t by = end - free_end_;
  if (!place_by(stream, by)) return false;
  run_ = {begin, end, by};
  return true;
}

std::vector<Move> StreamPacker::pack(std::vector<Reference>& references) {
  std::ranges::sort(references, [](const Reference& a, const Reference& b) {
    return a.offset != b.offset ? a.offset > b.offset : a.bytes > b.bytes;
  });
  std::vector<Move> moves;
  size_t placed = 0;
  while (placed < references.size()) {
    Reference stream = references[placed];
    size_t next = placed + 1;
    for (; next < references.size() && references[next].offset == stream.offset &&
           references[next].bytes == stream.bytes;
         ++next)
      stream.weight += references[next].weight;
    bool fits = place(stream);
    while (!fits && next_hole_ < holes_.size()) {
      enter(holes_[next_hole_++]);
      fits = place(stream);
    }
    if (!fits) break;
    for (; placed < next; ++placed) references[placed].by = run_.by;
    const uint64_t begin = first_sector(stream);
    moves.push_back({begin, begin - run_.by, end_of_sectors(stream) - begin});
  }
  references.resize(placed);
  return moves;
}

std::vector<uint64_t> StreamPacker::filled() const {
  std::vector<uint64_t> clusters = filled_;
  std::ranges::sort(clusters);
  return clusters;
}

}  // namespace platter::format::qcow2
