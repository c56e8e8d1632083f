#include "format/qcow2/create_layout.h"

#include <algorithm>
#include <cerrno>

#include "base/math.h"
#include "base/try.h"

namespace platter::format::qcow2 {

// The counts cover the clusters that they themselves take: grown until they do.
Result<Layout> plan_layout(const Header& header, bool preallocate, uint64_t encryption_bytes) {
  const Geometry geometry = header.geometry();
  Layout layout;
  layout.l1_clusters = geometry.clusters_for(header.l1_bytes());
  layout.encryption_clusters = geometry.clusters_for(encryption_bytes);
  if (preallocate) {
    layout.l2_clusters = header.l1_entries;
    layout.mapped_clusters = geometry.clusters_for(header.size);
    if (!geometry.external_data) layout.data_clusters = layout.mapped_clusters;
  }
  layout.refcount_block_clusters = 1;
  layout.refcount_table_clusters = 1;
  for (;;) {
    layout.refcount_blocks = layout.refcount_table + layout.refcount_table_clusters;
    layout.l1_table = layout.refcount_blocks + layout.refcount_block_clusters;
    layout.encryption = layout.l1_table + layout.l1_clusters;
    layout.l2_tables = layout.encryption + layout.encryption_clusters;
    layout.data = layout.l2_tables + layout.l2_clusters;
    layout.end = layout.data + layout.data_clusters;
    const uint64_t blocks = base::divide_round_up(layout.end, geometry.refcount_block_entries());
    const uint64_t table = geometry.clusters_for(blocks * kTableEntryBytes);
    if (blocks <= layout.refcount_block_clusters && table <= layout.refcount_table_clusters) break;
    layout.refcount_block_clusters = std::max(blocks, layout.refcount_block_clusters);
    layout.refcount_table_clusters = std::max(table, layout.refcount_table_clusters);
  }
  if (layout.refcount_table_clusters > kMaxRefcountTableBytes >> header.cluster_bits ||
      layout.end > kMaxHostOffset >> header.cluster_bits) {
    return fail(EFBIG,
                "The image size is too large for file format 'qcow2' (try using a larger "
                "cluster size)");
  }
  return layout;
}

}  // namespace platter::format::qcow2
