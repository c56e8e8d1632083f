#include "format/qcow2/cache_cleaner.h"

namespace platter::format::qcow2 {

void CacheCleaner::start(std::chrono::seconds interval) {
  if (interval.count() != 0) running_.spawn(*io::Reactor::current(), run(interval));
}

io::Task<void> CacheCleaner::stop() {
  stopping_.cancel();
  co_await running_.close();
}

io::Task<void> CacheCleaner::run(io::Nanoseconds interval) {
  while (co_await io::sleep_for(interval, stopping_.token())) {
    co_await l2_tables_.give_back_unused();
    co_await refcounts_.give_back_unused();
  }
}

}  // namespace platter::format::qcow2
