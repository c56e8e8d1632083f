// CacheCleaner: at each interval, gives back the memory of the cached tables that nobody has used
// since the turn before (TableCache::give_back_unused).
//
// One task, on the reactor that start() is called on. It does no I/O and takes no lock of the
// image's: requests and drained sections do not wait for it. Its owner does, with stop(), before it
// goes.
#pragma once

#include <chrono>

#include "format/qcow2/table_cache.h"
#include "io/cancel.h"
#include "io/gate.h"

namespace platter::format::qcow2 {

class CacheCleaner {
 public:
  // Both outlive it.
  CacheCleaner(TableCache& l2_tables, TableCache& refcounts)
      : l2_tables_(l2_tables), refcounts_(refcounts) {}

  // At most once. Zero: never cleans.
  void start(std::chrono::seconds interval);
  // At once, however long the interval is. Whether it was started or not; not started after it.
  io::Task<void> stop();

 private:
  io::Task<void> run(io::Nanoseconds interval);

  TableCache& l2_tables_;
  TableCache& refcounts_;
  io::CancelSource stopping_;
  io::Gate running_;
};

}  // namespace platter::format::qcow2
