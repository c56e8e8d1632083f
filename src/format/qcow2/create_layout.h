// Where the parts of a new image go, and so how large its file is.
#pragma once

#include <cstdint>

#include "format/qcow2/header.h"
#include "platter/error.h"

namespace platter::format::qcow2 {

// Where everything goes: cluster numbers, in file order.
struct Layout {
  uint64_t refcount_table = 1;
  uint64_t refcount_table_clusters = 0;
  uint64_t refcount_blocks = 0;
  uint64_t refcount_block_clusters = 0;
  uint64_t l1_table = 0;
  uint64_t l1_clusters = 0;
  uint64_t encryption = 0;  // the header of LUKS
  uint64_t encryption_clusters = 0;
  uint64_t l2_tables = 0;
  uint64_t l2_clusters = 0;      // 0: nothing is preallocated
  uint64_t mapped_clusters = 0;  // guest's
  uint64_t data = 0;             // where they begin
  uint64_t data_clusters = 0;    // of them in this file: 0 with an external data file
  uint64_t end = 0;
};

// With `preallocate`, room for every cluster of the disk. `encryption_bytes`: of the header of
// LUKS, 0 without. EFBIG: the format cannot hold it.
Result<Layout> plan_layout(const Header& header, bool preallocate, uint64_t encryption_bytes);

}  // namespace platter::format::qcow2
