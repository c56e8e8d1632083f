// The order in which an open image's metadata reaches the disk: the one place that says it.
//
// A write-back round (writeback.h) copies everything that is dirty and then goes through
// kWriteOrder from top to bottom. Before a step's writes it issues a flush if anything that the
// step `needs` has been written and is not yet durable. A crash between any two writes therefore
// leaves at worst clusters that are counted and not used.
//
// clang-format off
//   allocate a cluster   count it in memory -> write data -> link it in the L2 slice in memory
//                        -> round: blocks | flush | refcount table | flush | L2 slices, L1 | flush
//   with a data file     the same, and each flush is of the data file first, then of the image: data
//                        is durable before the mapping that shows it, in whichever file it lies.
//                        Clusters of the data file are not counted. Discarding or zeroing them there
//                        comes before the mapping changes: through the old one they read as zeroes.
//   free a cluster       unlink it in the L2 slice in memory -> a whole round -> wait for the requests
//                        that were in flight -> discard it in the file, wait for that -> uncount it
//                        in memory (from here it may be allocated again) -> a later round
//   new refcount block   write it whole, counting itself -> set its table entry in memory -> a round
//   new L2 table         write it whole -> set its L1 entry in memory -> a round
//   larger L1 table, larger refcount table
//                        write it whole | flush | header fields, one write | flush | free the old
//                        one as above
//   another header       what it has beyond its first sector, to where the present one has nothing
//                        | flush | the first sector, one write | flush (header_rewrite.h)
// clang-format on
#pragma once

#include <cstdint>

namespace platter::format::qcow2 {

// What may have been written and not yet be durable.
enum Undurable : uint32_t {
  kUndurableData = 1,  // of clusters linked since
  kUndurableRefcountBlocks = 2,
  kUndurableRefcountTable = 4,
  kUndurableNewTables = 8,  // L2 tables written whole, not yet named by the L1
  kUndurableMappings = 16,
};

enum class WriteStep : uint8_t { kRefcountBlocks, kRefcountTable, kMappings };

struct WriteRule {
  WriteStep step;
  uint32_t needs;   // durable before this step's writes
  uint32_t leaves;  // undurable after them
};

inline constexpr WriteRule kWriteOrder[] = {
    {WriteStep::kRefcountBlocks, 0, kUndurableRefcountBlocks},
    {WriteStep::kRefcountTable, kUndurableRefcountBlocks, kUndurableRefcountTable},
    {WriteStep::kMappings,
     kUndurableData | kUndurableRefcountBlocks | kUndurableRefcountTable | kUndurableNewTables,
     kUndurableMappings},
};

}  // namespace platter::format::qcow2
