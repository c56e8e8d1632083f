// The reference counts as the image has them: its refcount table and blocks, read whole.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "block/node.h"
#include "format/qcow2/check.h"
#include "format/qcow2/header.h"
#include "format/qcow2/reference_counts.h"

namespace platter::format::qcow2 {

struct StoredCounts {
  // A refcount block that cannot be read: its clusters have no count.
  struct Unreadable {
    uint64_t table_index;
    uint64_t offset;
    Error error;
    bool unaligned;
  };
  ReferenceCounts counts;
  std::vector<Unreadable> unreadable;  // by table_index
};

// The refcount table, host byte order.
io::Task<Result<std::vector<uint64_t>>> read_refcount_table(block::Child& file,
                                                            const Header& header);

// The count of one cluster, wherever it lies; 0 where there is none or it cannot be read.
io::Task<uint64_t> read_stored_count(block::Child& file, const Header& header,
                                     std::span<const uint64_t> refcount_table, uint64_t cluster);

// The counts of the first `clusters` clusters. Blocks that the table lacks, or that lie outside the
// file, count zero.
io::Task<Result<StoredCounts>> read_stored_counts(block::Child& file, const Header& header,
                                                  std::span<const uint64_t> refcount_table,
                                                  uint64_t clusters, CheckOptions options);

}  // namespace platter::format::qcow2
