// StreamPacker: where compressed streams go one by one, when the clusters that hold them, each tied
// to the next by a stream that crosses over, find no hole for all of them together.
//
// What lies last in the file goes first, so that whatever moves shortens the file. A stream keeps
// its place within a sector: its entry's count of sectors stays what it is, and neighbours that
// share a sector stay neighbours.
#pragma once

#include <cstdint>
#include <vector>

#include "format/qcow2/layout.h"
#include "format/qcow2/relocator.h"

namespace platter::format::qcow2 {

class StreamPacker {
 public:
  // Free clusters in a row.
  struct Hole {
    uint64_t offset;
    uint64_t bytes;
  };
  StreamPacker(const Geometry& geometry, std::vector<Hole> holes);

  // `references`: all there are to the streams, which lie behind all holes. Afterwards they are
  // those to what moves, and say where to. It ends with the first stream that has no place: those
  // before it would gain nothing.
  std::vector<Move> pack(std::vector<Reference>& references);
  // Which clusters of holes were given streams, sorted.
  std::vector<uint64_t> filled() const;

 private:
  // Streams that go the same way, one on another's heels: their sectors in the file.
  struct Run {
    uint64_t begin = UINT64_MAX;
    uint64_t end = UINT64_MAX;
    uint64_t by = 0;
  };
  void enter(const Hole& hole);
  // `stream`: its weight is that of all references to it.
  bool place(const Reference& stream);
  bool place_by(const Reference& stream, uint64_t by);

  const Geometry geometry_;
  std::vector<Hole> holes_;  // the largest first
  size_t next_hole_ = 0;
  Hole hole_ = {0, 0};
  uint64_t free_end_ = 0;         // of the hole: what lies behind is taken
  std::vector<uint64_t> counts_;  // of its clusters
  Run run_;                       // the latest in it
  std::vector<uint64_t> filled_;
};

}  // namespace platter::format::qcow2
