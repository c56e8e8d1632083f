// The consistency check: every cluster's reference count against the references to it, and
// the copied flags against the counts. Read-only.
// Specification: docs/format/qcow2.md, "Consistency".
#pragma once

#include <cstdint>

#include "block/driver.h"
#include "format/qcow2/header.h"
#include "format/qcow2/reference_counts.h"
#include "io/task.h"
#include "platter/error.h"

namespace platter::format::qcow2 {

// How far a check is: bytes of tables, as they are known and as they are read.
class TableMeter {
 public:
  explicit TableMeter(block::CheckReporter& reporter) : reporter_(reporter) {}
  void expect(uint64_t bytes) { total_ += bytes; }
  void add(uint64_t bytes) { reporter_.progress(done_ += bytes, total_); }

 private:
  block::CheckReporter& reporter_;
  uint64_t done_ = 0;
  uint64_t total_ = 0;
};

struct CheckOptions {
  // For each of the two sets of counts, and for lists of tables; what the image asks for beyond it
  // is an error.
  uint64_t max_memory_bytes = uint64_t{1} << 30;
  TableMeter* meter = nullptr;  // null: nobody wants to know
};

// Checks the image in `file`, whose header was parsed with tolerate_damage. Called with nothing in
// flight and with caches written back: it reads `file` itself. An error means that the check could
// not be done.
io::Task<Result<block::CheckResult>> check_image(block::Child& file, Header header,
                                                 block::CheckReporter& reporter,
                                                 CheckOptions options = {});

// How often each cluster is referenced, whatever the image's own counts say: from the header, the
// active and inactive L1 and L2 tables, the snapshot table, the bitmaps, the refcount table and
// blocks. What a rebuild of the counts needs. EIO if the tables are corrupt or unreadable (the
// reporter has the details): then nothing may be rebuilt from them.
io::Task<Result<ReferenceCounts>> count_references(block::Child& file, Header header,
                                                   block::CheckReporter& reporter,
                                                   CheckOptions options = {});

// The same, whatever is wrong with the tables: what cannot be followed is left out, and counted in
// `result`. EIO only if some cannot be read.
io::Task<Result<ReferenceCounts>> count_reachable(block::Child& file, const Header& header,
                                                  block::CheckReporter& reporter,
                                                  block::CheckResult& result,
                                                  CheckOptions options = {});

}  // namespace platter::format::qcow2
