// Compactor: moves what lies at the end of an image's file into the holes before it, so that the
// file can be cut.
//
// Level by level, each once what hangs from it is in place: data and bitmaps' bits; L2 tables; L1
// tables, bitmaps' tables and refcount blocks; what the header names. A level goes through the end
// of the file window by window; how a window's clusters move, and why a power cut at any instant
// does no harm, is Relocator's. Compressed clusters whose streams cross from one into the next move
// together; where no hole is large enough for that, stream by stream, at last.
//
// Stays where it is: clusters that must stay together (tables, an encryption header) where no hole
// is large enough; what is referred to in more ways than one.
//
// Works on the file, which a check has found sound and without leaks: caches are written back
// before, and forgotten after. Nothing else changes the image meanwhile.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <vector>

#include "format/qcow2/image.h"
#include "format/qcow2/relocator.h"
#include "format/qcow2/snapshots.h"
#include "format/qcow2/stream_packer.h"
#include "io/cancel.h"

namespace platter::format::qcow2 {

class Compactor {
 public:
  // Of one batch, about: 56 MiB of them.
  static constexpr uint64_t kMaxReferences = uint64_t{1} << 20;

  // `encryption`: the image's, null where there is none. Both outlive the compactor.
  Compactor(Image& image, Encryption* encryption, io::CancelToken cancel,
            std::function<void(uint64_t, uint64_t)> progress);

  // ECANCELED: it stopped between two batches; the image is in order.
  io::Task<Result<void>> run();

  // The clusters that remain in use end here, in bytes: where the file may be cut.
  uint64_t end() const { return relocator_.end_of_used() << geometry_.cluster_bits; }
  uint64_t moved_bytes() const { return moved_bytes_; }

 private:
  enum class Level : uint8_t { kData, kL2Tables, kUpperTables, kRoots };
  // Clusters [begin, end) of the file.
  struct Window {
    uint64_t begin;
    uint64_t end;
    uint64_t references = 0;  // to what is in there
    bool contains(uint64_t cluster) const { return cluster >= begin && cluster < end; }
  };
  struct Tables {
    std::vector<uint64_t> l1_offsets;  // of the L1 tables, each once
    std::vector<uint64_t> l1_entries;
    std::vector<uint64_t> l2_offsets;  // of the L2 tables, each once, sorted
  };

  void choose_end();
  uint64_t threshold() const;
  Window next_window(uint64_t begin) const;
  io::Task<Result<void>> run_level(Level level);
  io::Task<Result<void>> relocate(std::vector<Move> moves, std::vector<Reference> references);
  io::Task<Result<void>> pack_streams();
  io::Task<Result<std::vector<Reference>>> collect_last_streams();
  std::vector<StreamPacker::Hole> take_holes(uint64_t clusters);
  void give_back(const std::vector<StreamPacker::Hole>& holes, const std::vector<uint64_t>& but);
  io::Task<Result<std::vector<Reference>>> collect(Level level, Window window);
  io::Task<Result<Tables>> list_tables();
  io::Task<Result<void>> for_each_l2(
      std::span<const uint64_t> offsets,
      std::function<void(uint64_t table_offset, std::span<const uint8_t> table)> visit);
  io::Task<Result<void>> find_ties();
  uint64_t weight_of(uint64_t place) const {
    return relocator_.count(place >> geometry_.cluster_bits);
  }
  void add_if_within(Window window, Reference reference, std::vector<Reference>& references) const;
  io::Task<Result<std::vector<Reference>>> collect_data(Window window);
  io::Task<Result<void>> collect_guest_data(Window window, std::vector<Reference>& references);
  io::Task<Result<void>> collect_bitmap_bits(Window window, std::vector<Reference>& references);
  io::Task<Result<std::vector<Reference>>> collect_l2_tables(Window window);
  io::Task<Result<std::vector<Reference>>> collect_upper_tables(Window window);
  io::Task<Result<void>> collect_bitmap_tables(Window window, std::vector<Reference>& references);
  io::Task<Result<std::vector<Reference>>> collect_roots(Window window);
  io::Task<Result<void>> reserve_for_tables();
  std::vector<Move> group(std::span<const Reference> references) const;
  std::vector<Move> plan(std::vector<Reference>& references);
  io::Task<Result<void>> drop_blocks();

  Image& image_;
  const Geometry geometry_;
  const io::CancelToken cancel_;
  const std::function<void(uint64_t, uint64_t)> progress_;
  Relocator relocator_;
  uint64_t file_clusters_ = 0;
  uint64_t end_ = 0;  // clusters: what is in use could lie before it
  // Of each cluster: whether a compressed stream goes on from it into the next.
  std::vector<bool> tied_;
  // Where tables of several clusters go, by the offset of each.
  std::map<uint64_t, uint64_t> reserved_;
  uint64_t moved_bytes_ = 0;
};

}  // namespace platter::format::qcow2
