// The snapshot table: read and validated, for check and for the driver.
// Specification: docs/format/qcow2.md, "Snapshots".
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "format/qcow2/header.h"
#include "io/task.h"
#include "platter/error.h"

namespace platter::format::qcow2 {

struct Snapshot {
  uint64_t l1_table_offset = 0;  // as stored
  uint32_t l1_entries = 0;       // as stored
  std::string id;
  std::string name;
  uint32_t date_seconds = 0;
  uint32_t date_nanoseconds = 0;
  uint64_t vm_clock_nanoseconds = 0;
  uint64_t vm_state_size = 0;
  uint64_t disk_size = 0;
  uint64_t icount = UINT64_MAX;        // UINT64_MAX: none
  std::vector<uint8_t> unknown_extra;  // extra data beyond what we know, kept for a rewrite
  // Lacks the extra data that version 3 demands.
  bool incomplete = false;
  uint64_t table_position = 0;  // of its entry, from the start of the table it was read from
};

struct SnapshotTable {
  std::vector<Snapshot> snapshots;
  uint64_t bytes = 0;  // that the table occupies
};

// Reads what the header announces. EFBIG: more than the limits allow.
io::Task<Result<SnapshotTable>> read_snapshot_table(block::Child& file, const Header& header);

// The table as it goes to disk, with all the extra data that we know. EFBIG: more than the limits
// allow.
Result<std::vector<uint8_t>> serialise_snapshot_table(std::span<const Snapshot> snapshots);

// Whether the L1 table of a snapshot is where a table may be: aligned and within the limits.
Result<void> check_snapshot_l1(const Snapshot& snapshot, const Geometry& geometry);

}  // namespace platter::format::qcow2
