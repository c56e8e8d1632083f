// Relocator: moves parts of an image's file to other places in it, references and all.
//
// Order of one batch; a crash between any two of its steps leaves at worst clusters that are
// counted and not used:
//   count the new places, write the content there | flush | write the references, 8 bytes each and
//   within one sector | flush | uncount the old places
// While only some of the references to a shared cluster have been written, old and new place mean
// the same, and each is counted for all of them.
//
// Works on the file: caches are written back before, and forgotten after. Nothing else changes the
// image meanwhile.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "format/qcow2/image.h"
#include "format/qcow2/reference_counts.h"

namespace platter::format::qcow2 {

class Encryption;

// Guest data may be encrypted, by where it lies; metadata and compressed data never are.
enum class Content : uint8_t { kPlain, kGuestData };

// A table entry or header field that names a part of the file. The host offset stands in the low
// bits of its eight bytes, which lie in one sector, whatever else they say.
struct Reference {
  uint64_t place;   // in the file
  uint64_t value;   // of the eight bytes
  uint64_t offset;  // what it names: bytes of the file, all clusters of which it counts in
  uint64_t bytes;
  Content content = Content::kPlain;
  uint64_t weight = 1;  // how often it counts: as often as the table that it stands in
  uint64_t by = 0;      // how many bytes downwards that goes
};

// Bytes that go from one place to another: whole sectors.
struct Move {
  uint64_t from;
  uint64_t to;
  uint64_t bytes;
  Content content = Content::kPlain;
};

class Relocator {
 public:
  // `encryption`: of guest data; null: there is none. Outlives the relocator.
  Relocator(Image& image, Encryption* encryption);

  // Reads the counts and the refcount table.
  io::Task<Result<void>> load();
  // After the refcount table or an entry of it has changed in the file.
  io::Task<Result<void>> load_table();

  uint64_t count(uint64_t cluster) const {
    return cluster < counts_.clusters() ? counts_.get(cluster) : 0;
  }
  const std::vector<uint64_t>& table() const { return table_; }
  std::vector<uint64_t> take_table() { return std::move(table_); }
  // The cluster after the last one with a count.
  uint64_t end_of_used() const { return static_cast<uint64_t>(counts_.last_used() + 1); }
  uint64_t used() const;

  // Takes so many clusters in a row that are free, the first there are, all before `end`. Nothing:
  // there are none.
  std::optional<uint64_t> take_free(uint64_t clusters, uint64_t end);
  void give_back(uint64_t cluster);
  // `references`: to what moves, and where the places that were taken for it are. None of those
  // that name them moves in this batch. Moves that overlap go the same way. Where there is no space
  // for the copies, everything is as it was.
  io::Task<Result<void>> move(std::vector<Move> moves, std::vector<Reference> references);

  // Takes these refcount blocks, by their index, out of the table. They count nothing but refcount
  // blocks that go, too.
  io::Task<Result<void>> drop_blocks(std::span<const uint64_t> blocks);

 private:
  Result<void> store(uint64_t cluster, uint64_t count);
  Result<void> count_new(const Reference& reference);
  Result<void> uncount(const Reference& reference, uint64_t offset);
  io::Task<Result<void>> uncount_new(std::span<const Reference> references);
  io::Task<Result<void>> write_counts();
  io::Task<Result<void>> copy(std::vector<Move> moves);
  io::Task<Result<void>> copy_piece(Move piece);
  io::Task<Result<void>> write_references(std::span<const Reference> references);
  io::Task<Result<void>> write_near(std::span<const Reference> references);
  io::Task<Result<void>> in_parallel(std::vector<io::Task<Result<void>>>& tasks, bool all);

  Image& image_;
  block::Child& file_;
  Encryption* encryption_;
  const Geometry geometry_;
  ReferenceCounts counts_;
  std::vector<uint64_t> table_;
  std::set<uint64_t> dirty_blocks_;
  std::vector<bool> taken_;   // by take_free()
  uint64_t search_from_ = 1;  // nothing before is free
};

}  // namespace platter::format::qcow2
