// The runtime options of a qcow2 node, and the cache sizes that follow from them.
#pragma once

#include <chrono>
#include <cstdint>

#include "base/options.h"
#include "format/qcow2/header.h"
#include "format/qcow2/overlap_guard.h"
#include "format/qcow2/table_cache.h"
#include "platter/error.h"

namespace platter::format::qcow2 {

extern const base::OptionSchema kRuntimeOptions;

struct OpenOptions {
  bool pass_discard_request = false;
  bool pass_discard_snapshot = false;
  bool pass_discard_other = false;
  // What is discarded or zeroed keeps its host clusters, so that it is later written where it was.
  bool discard_no_unref = false;
  bool lazy_refcounts = false;
  Structures overlap_checks = kCachedStructures;
  std::chrono::seconds cache_clean_interval{};  // 0: tables stay in memory while there is room
};

struct CacheSizes {
  uint64_t l2_bytes = 0;
  uint64_t l2_slice_bytes = 0;
  uint64_t refcount_bytes = 0;
  uint64_t refcount_slice_bytes = 0;

  bool operator==(const CacheSizes&) const = default;
};

// `unmap`: the node was opened with discard=unmap.
Result<OpenOptions> read_open_options(const base::OptionSet& options, const Header& header,
                                      bool unmap);
Result<CacheSizes> read_cache_sizes(const base::OptionSet& options, const Header& header);
TableCache::Config refcount_cache(const CacheSizes& sizes);
TableCache::Config l2_cache(const CacheSizes& sizes, const Geometry& geometry,
                            uint64_t virtual_size);

}  // namespace platter::format::qcow2
